"""Find codes that are not classes: those between the true ones, which smoothing or lossy compression leaves."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmseg_volo.autotrain.code_regions import THIN
from mmseg_volo.autotrain.code_stats import CodeStats
from mmseg_volo.autotrain.ignored_codes import are_indices
from mmseg_volo.datasets.nearest_code import as_points, nearest_index, reach
from mmseg_volo.errors import UsageError

APART = 16  # levels of a channel: a code closer than this to a true one is an artefact of lossy compression
NEAR, FEWER = 24, 20  # levels from a true code, and how many times fewer pixels: a code made by blur
BETWEEN = 0.8  # share of a code's pixels between two others, of a border
MANY = 3  # such codes, and half of all that are not true, from which masks count as smoothed
MANY_INDICES, MOST = 10, 0.7  # the same where values could be class indices, and their share of all values
ROUNDING = 3  # levels from a true code within which lossy compression makes areas of another


def strays(stats: CodeStats, codes: Sequence[int], named: Collection[int] = ()) -> tuple[list[int], bool]:
    """Find codes that are probably not classes.

    Args:
        stats: statistics of all masks.
        codes: those that are not ignored, ascending.
        named: those that the user names as classes.

    Returns:
        These codes, none if masks are clean; and whether they come from smoothing or lossy compression, so that each
        stands for the nearest true code. Otherwise they are borders between others, which may be drawn on purpose.
    """
    true = _true(stats, codes, named)
    others = [code for code in codes if code not in true]
    if not true or not others:
        return [], False
    if stats.lossy:
        return others, True
    thin = [code for code in others if stats.cores[code] <= THIN * stats.pixels[code]]
    borders = [code for code in thin if stats.borders[code] >= BETWEEN * stats.pixels[code]]
    odd = {*borders, *_blurs(stats, thin, true)}
    if stats.kind == 'values' and are_indices(codes):
        solid = [code for code in others if code not in thin]
        plain = len(true) < 2 or solid and _far(stats, solid, true).max() > ROUNDING
        return (others, True) if not plain and len(odd) >= max(MANY_INDICES, MOST * len(codes)) else ([], False)
    return (others, True) if len(odd) >= max(MANY, len(others) / 2) else (borders, False)


def _true(stats: CodeStats, codes: Sequence[int], named: Collection[int]) -> list[int]:
    """Return the codes that are named, or have areas and lie apart from others with more pixels."""
    true = [*named]
    for code in sorted({*codes} - {*true}, key=lambda code: (-stats.pixels[code], code)):
        if stats.cores[code] > THIN * stats.pixels[code] and (not true or _far(stats, [code], true)[0] > APART):
            true.append(code)
    return true


def _far(stats: CodeStats, codes: Sequence[int], known: Sequence[int]) -> NDArray[Any]:
    """Return the largest channel difference of each code to the nearest known one: (n,)."""
    points, others = (as_points(np.array(some, np.int64), stats.kind) for some in (codes, known))
    return np.abs(points[:, None] - others).max(2).min(1)


def _blurs(stats: CodeStats, thin: Sequence[int], true: Sequence[int]) -> list[int]:
    """Return the codes near one with many more pixels."""
    return [
        code
        for code in thin
        if (many := [other for other in true if stats.pixels[other] >= FEWER * stats.pixels[code]])
        and _far(stats, [code], many)[0] <= NEAR
    ]


def refuse(stats: CodeStats, codes: Sequence[int], odd: Sequence[int], smoothed: bool) -> None:
    """Refuse masks with codes that are not classes.

    Args:
        stats: statistics of all masks.
        codes: those that are not ignored.
        odd, smoothed: returned by `strays`.

    Raises:
        UsageError: always; says what to do.
    """
    what = 'colours' if stats.kind == 'colours' else 'values'
    true = sorted(code for code in codes if code not in odd)
    examples = stats.some(sorted(odd, key=lambda code: -stats.pixels[code]))
    share = 100 * stats.share(*odd)
    if not smoothed:
        raise UsageError(
            f'masks hold {what} only as thin borders between others ({examples}; {share:.2g} % of all pixels): ignore '
            f'them with --ignore {" ".join(stats.some([code]) for code in odd)}, or name them if they are classes: '
            f'{stats.naming(codes)}'
        )
    binary = '; --binary makes bright pixels the foreground' if set(true) in ({0, 255}, {0, 0xFFFFFF}) else ''
    how = 'lossy compression (JPEG)' if stats.lossy else 'smoothing or lossy compression'
    raise UsageError(
        f'masks hold {len(codes)} {what}, of which {len(true)} cover {100 - share:.4g} % of all pixels; the others '
        f'({examples}) are no classes, but come from {how}: export the masks again as PNG without smoothing, or name '
        f'the true {what}, so that each pixel counts as the nearest: {stats.naming(true)}{binary}'
    )


def settled(stats: CodeStats, odd: Sequence[int], known: Sequence[int]) -> str:
    """Return a note on codes that count as the nearest of the known ones."""
    codes = np.array(odd, np.int64)
    pixels = np.array([stats.pixels[code] for code in odd])
    _, far = nearest_index(codes, np.array(known, np.int64), stats.kind)
    limit = reach(np.array(known, np.int64), stats.kind)
    taken, total = far <= limit, sum(stats.pixels.values())
    what = 'colours' if stats.kind == 'colours' else 'values'
    note = (
        f'{pixels[taken].sum()} pixels ({100 * pixels[taken].sum() / total:.2g} %) with {taken.sum()} other {what} '
        f'count as the nearest class, up to {far[taken].max(initial=0):.0f} away'
    )
    if not taken.all():
        note += f'; {pixels[~taken].sum()} pixels are farther than {limit:.0f} from every class, and ignored'
    return note
