"""Find mask values that are ignored without being named: nodata of the files, and values ignored by convention."""

from __future__ import annotations

from collections.abc import Sequence

from mmseg_volo.autotrain.class_names import ClassEntry
from mmseg_volo.autotrain.code_regions import THIN
from mmseg_volo.autotrain.code_stats import USUAL, CodeStats
from mmseg_volo.errors import UsageError

RARE = 0.2  # share of all pixels, above which a value is not taken for ignored
NEXT_TO = 0.05  # the same, of a nodata value that could be a class
BORDER = 0.5  # share of a value's pixels between two others, of a border
UNEVEN = 2  # grey levels by which even steps may differ


def void_values(
    stats: CodeStats, rest: Sequence[int], named: Sequence[ClassEntry], asked: bool
) -> tuple[set[int], list[str]]:
    """Return the ignored values, and notes.

    Args:
        stats: statistics of all masks.
        rest: the values without those that `--ignore` names, ascending.
        named: the classes as the user names them.
        asked: whether `--ignore` was given, which replaces the convention.

    Raises:
        UsageError: a value may be ignored or a class; says how to decide.
    """
    classes = {item.code for item in named if item.code is not None}
    high = rest[-1:] if rest and rest[-1] in USUAL and not asked else []
    doubtful = [code for code in rest if code < 0 or code in stats.nodata or code in high]
    ignored, notes = set[int](), list[str]()
    for code in doubtful:
        others = [other for other in rest if other != code and other not in ignored]
        if code in classes:
            continue
        why = _why(stats, code, others, named, asked)
        if why:
            ignored.add(code)
            notes.append(f'{code} is ignored ({100 * stats.share(code):.2g} % of all pixels), {why}')
        elif code in stats.nodata:
            way = f'--ignore {code} excludes its pixels' if len(others) > 1 else 'otherwise there would be only one'
            notes.append(f'{code} is a class, though files call it nodata: {way}')
        elif code in USUAL and not named and _is_even([*others, code]):
            notes.append(
                f'{code} is a class, as the values are even steps of grey: --ignore {code} excludes its pixels'
            )
    return ignored, notes


def _why(stats: CodeStats, code: int, others: Sequence[int], named: Sequence[ClassEntry], asked: bool) -> str:
    """Return why a value is ignored; an empty string if it is a class."""
    count, coded = len(named), any(item.code is not None for item in named)
    if len(others) < 2:
        return ''
    if count and not coded:
        if len(others) + 1 == count or code >= 0 and max(*others, code) < count:
            return ''
        if others[-1] < count and others[0] >= 0 or others[0] == 1 and others[-1] == count:
            return 'as the class names belong to the other values'
    share, tagged = stats.share(code), code in stats.nodata
    if tagged and _is_apart(code, others):
        return 'as files call it nodata'
    if tagged and share <= NEXT_TO:
        return 'as files call it nodata; name it with --classes to make it a class'
    if not tagged and code in USUAL and (code == others[-1] + 1 or _is_even([*others, code])):
        return ''
    beside = are_indices(others) and code not in stats.apart and not _has_all_areas(stats, code, others)
    if share <= RARE and (beside or _is_border(stats, code)) and not tagged:
        return 'as it is apart from the classes; name it with --classes to make it a class'
    if coded or asked and code >= 0:
        return ''
    what = 'which files call nodata' if tagged else 'which means "ignored" in some data sets'
    where = ', in no mask beside another class' * (code in stats.apart)
    every = stats.naming(sorted([*others, code]))
    other = 'replace it in the masks by a value of 0 or more' if code < 0 else f'name all classes: {every}'
    raise UsageError(
        f'masks hold {code}, {what}, on {100 * share:.3g} % of all pixels, beside {stats.some(others)}{where}: are '
        f'these pixels ignored, or is it a class? Add --ignore {code}, or {other}'
    )


def are_indices(values: Sequence[int]) -> bool:
    """Whether ascending values are counted from 0 or 1, possibly with gaps."""
    return bool(values) and values[0] >= 0 and values[-1] <= 2 * len(values) + 2


def _is_apart(code: int, others: Sequence[int]) -> bool:
    """Whether a value cannot be a further class."""
    return code < 0 or code > others[-1] + 1 and not _is_even([*others, code])


def _is_even(values: Sequence[int]) -> bool:
    """Whether values are even steps from dark to light."""
    low, high = values[0], values[-1]
    if len(values) < 3:
        return False
    step = (high - low) / (len(values) - 1)
    return step > 2 * UNEVEN and all(abs(low + i * step - value) <= UNEVEN for i, value in enumerate(values))


def _has_all_areas(stats: CodeStats, code: int, others: Sequence[int]) -> bool:
    """Whether a value and at most one other lie in areas, and all others in specks and lines."""
    solid = [value for value in (code, *others) if stats.cores[value] > THIN * stats.pixels[value]]
    return code in solid and len(solid) < 3


def _is_border(stats: CodeStats, code: int) -> bool:
    pixels = stats.pixels[code]
    return stats.cores[code] <= THIN * pixels and stats.borders[code] >= BORDER * pixels
