"""Masks that were smoothed or saved with a loss: codes between the true ones, which are no classes."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from mmseg_volo.autotrain.code_regions import THIN
from mmseg_volo.autotrain.code_stats import CodeStats
from mmseg_volo.autotrain.ignored_codes import are_indices
from mmseg_volo.datasets.nearest_code import as_points, nearest_index, reach
from mmseg_volo.errors import UsageError

APART = 16  # levels of a channel: less than this from a true code, another one is none in files saved with a loss
NEAR, FEWER = 24, 20  # levels from a true code, and times fewer pixels than it has: what blur makes of it
BETWEEN = 0.8  # of a code's pixels that lie between two others
MANY = 3  # such codes, and half of all that are not true: masks were smoothed
MANY_INDICES, MOST = 10, 0.7  # the same where values could be class indices, and the part of all values
ROUNDING = 3  # levels from a true code, within which a loss makes areas of another one


def strays(seen: CodeStats, codes: Sequence[int], named: Collection[int] = ()) -> tuple[list[int], bool]:
    """Codes that are no classes, as far as can be told.

    Args:
        seen: in all masks.
        codes: those that count, ascending.
        named: those that the user names as classes.

    Returns:
        Which they are, none where masks are as they should be; and whether smoothing or a loss has made them, so that
        they stand for what is nearest: else they are borders between others, and may be drawn.
    """
    true = _true(seen, codes, named)
    others = [code for code in codes if code not in true]
    if not true or not others:
        return [], False
    if seen.lossy:
        return others, True
    thin = [code for code in others if seen.cores[code] <= THIN * seen.pixels[code]]
    borders = [code for code in thin if seen.borders[code] >= BETWEEN * seen.pixels[code]]
    odd = {*borders, *_blurs(seen, thin, true)}
    if seen.kind == 'values' and are_indices(codes):
        solid = [code for code in others if code not in thin]
        plain = len(true) < 2 or solid and _far(seen, solid, true).max() > ROUNDING
        return (others, True) if not plain and len(odd) >= max(MANY_INDICES, MOST * len(codes)) else ([], False)
    return (others, True) if len(odd) >= max(MANY, len(others) / 2) else (borders, False)


def _true(seen: CodeStats, codes: Sequence[int], named: Collection[int]) -> list[int]:
    """Those that are named, or have areas and are apart from others with more pixels."""
    found = [*named]
    for code in sorted({*codes} - {*found}, key=lambda code: (-seen.pixels[code], code)):
        if seen.cores[code] > THIN * seen.pixels[code] and (not found or _far(seen, [code], found)[0] > APART):
            found.append(code)
    return found


def _far(seen: CodeStats, codes: Sequence[int], known: Sequence[int]) -> np.ndarray:
    """The largest difference of a channel to the nearest of some codes: (n,)."""
    points, others = (as_points(np.array(some, np.int64), seen.kind) for some in (codes, known))
    return np.abs(points[:, None] - others).max(2).min(1)


def _blurs(seen: CodeStats, thin: Sequence[int], true: Sequence[int]) -> list[int]:
    """Those that are near to a code with many more pixels."""
    return [
        code
        for code in thin
        if (many := [other for other in true if seen.pixels[other] >= FEWER * seen.pixels[code]])
        and _far(seen, [code], many)[0] <= NEAR
    ]


def refuse(seen: CodeStats, codes: Sequence[int], odd: Sequence[int], smoothed: bool) -> None:
    """Ends the work for codes that are no classes.

    Args:
        seen: in all masks.
        codes: those that count.
        odd, smoothed: what `strays` says of them.

    Raises:
        UsageError: always; says what to do.
    """
    what = 'colours' if seen.kind == 'colours' else 'values'
    true = sorted(code for code in codes if code not in odd)
    said = seen.some(sorted(odd, key=lambda code: -seen.pixels[code]))
    share = 100 * seen.share(*odd)
    if not smoothed:
        raise UsageError(
            f'masks hold {what} only as thin borders between others ({said}; {share:.2g} % of all pixels): leave them '
            f'out with --ignore {" ".join(seen.some([code]) for code in odd)}, or name them, if they are classes: '
            f'{seen.naming(codes)}'
        )
    binary = '; --binary takes what is bright as the one class' if set(true) in ({0, 255}, {0, 0xFFFFFF}) else ''
    how = 'were saved with a loss, as JPEG does' if seen.lossy else 'were smoothed, or saved with a loss'
    raise UsageError(
        f'masks hold {len(codes)} {what}, of which {len(true)} cover {100 - share:.4g} % of all pixels; the others '
        f'({said}) are no classes, as masks {how}: make them anew as PNG, without smoothing, or name the true {what}, '
        f'so that each pixel counts as the nearest: {seen.naming(true)}{binary}'
    )


def settled(seen: CodeStats, odd: Sequence[int], known: Sequence[int]) -> str:
    """What becomes of codes that count as the nearest of the known ones."""
    codes = np.array(odd, np.int64)
    pixels = np.array([seen.pixels[code] for code in odd])
    _, far = nearest_index(codes, np.array(known, np.int64), seen.kind)
    limit = reach(np.array(known, np.int64), seen.kind)
    taken, total = far <= limit, sum(seen.pixels.values())
    what = 'colours' if seen.kind == 'colours' else 'values'
    note = (
        f'{pixels[taken].sum()} pixels ({100 * pixels[taken].sum() / total:.2g} %) with {taken.sum()} other {what} '
        f'count as the nearest class, up to {far[taken].max(initial=0):.0f} away'
    )
    if not taken.all():
        note += f'; {pixels[~taken].sum()} pixels are farther than {limit:.0f} from all, and ignored'
    return note
