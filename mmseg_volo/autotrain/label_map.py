"""Map the values or colours of masks to classes and ignored pixels, or ask the user how."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from mmseg_volo.autotrain.blurred_masks import refuse, settled, strays
from mmseg_volo.autotrain.class_files import ClassEntry, colour_code
from mmseg_volo.autotrain.class_names import LABELME, painted
from mmseg_volo.autotrain.code_stats import CodeStats, code_stats
from mmseg_volo.autotrain.ignored_codes import void_values
from mmseg_volo.autotrain.image_stats import ImageStats
from mmseg_volo.datasets.mask_codes import GONE, GREY, MaskRule, format_code, unpack_colour
from mmseg_volo.errors import UsageError

VOID: tuple[str, ...] = ('void', 'ignore', 'ignored', 'unlabeled', 'unlabelled', 'unknown', 'dontcare')
VOID += ('dont care', 'border', 'nodata', LABELME)
SHOWN = 8  # names that a note lists


@dataclass(frozen=True)
class Labels:
    """The meaning of mask values."""

    rule: MaskRule
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...] | None  # RGB
    notes: list[str] = field(default_factory=list)

    def pixels(self, facts: ImageStats) -> dict[int, int]:
        """Return the pixels of a mask by index of the class, or of ignored pixels."""
        pixels = facts.counts_as(self.rule.kind)
        by_index: Counter[int] = Counter()
        for index, n in zip(self.rule.indices_of(np.array([*pixels], np.int64)).tolist(), pixels.values(), strict=True):
            by_index[index] += n
        return dict(by_index)


def infer_label_map(
    facts: Sequence[ImageStats], named: Sequence[ClassEntry], source: str, ignore: Sequence[str], binary: bool
) -> Labels:
    """Infer the meaning of mask values.

    Args:
        facts: statistics of all images with masks.
        named: see `read_names`.
        source: of these names, for messages.
        ignore: values, colours `R,G,B` or class names to ignore.
        binary: whether masks are black and white, with blurred values between.

    Raises:
        UsageError: the meaning is ambiguous; says what to add to the command.
    """
    kind = 'binary' if binary else _kind(facts, named)
    named = painted(named) if kind == 'colours' else named
    stats = code_stats(facts, kind)
    _not_blurred(kind, stats.pixels)
    by_name = {item.name for item in named if item.name.lower() in VOID or item.name in ignore}
    ignored = {code for word in ignore if (code := _ignored(word, kind, by_name)) is not None}
    absent = _absent(sorted(ignored - stats.pixels.keys()), kind)
    named = [item for item in named if item.code is None or item.code not in ignored]
    rest, notes = sorted(stats.pixels.keys() - ignored), list[str]()
    if kind == 'values':
        void, notes = void_values(stats, rest, named, bool(ignore))
        ignored |= void
        rest = [code for code in rest if code not in void]
    rest, odd = _without_strays(stats, rest, named)
    chosen = _assign_names(rest, named, source, stats)
    ignored |= {code for code, name in chosen.items() if name in by_name}
    notes += [
        f'{name} is ignored, by its name ({100 * stats.share(code):.2g} % of all pixels)'
        for code, name in chosen.items()
        if name in by_name
    ]
    notes += absent
    if odd:
        notes.append(settled(stats, odd, [*chosen, *(ignored - chosen.keys())]))
    if stats.gone:
        notes.append(
            f'{stats.gone} pixels of masks are ignored, as they are not a number, or have no data in the image'
        )
    chosen = {code: name for code, name in chosen.items() if name not in by_name}
    _refuse_single(chosen)
    codes, void_codes = ([_plain(code, kind) for code in some] for some in (chosen, sorted(ignored)))
    rule = MaskRule(kind, codes, void_codes, bool(odd))
    notes += _empty(rule, chosen, facts, source)
    return Labels(rule, tuple(chosen.values()), _palette(facts, [*chosen], kind, named), notes)


def _plain(code: int, kind: str) -> int | list[int]:
    return list(unpack_colour(code)) if kind == 'colours' else code


def _refuse_single(chosen: Mapping[int, str]) -> None:
    if len(chosen) < 2:
        raise UsageError(
            f'masks hold one class only ({", ".join(chosen.values()) or "none"}), and at least two are needed: are the '
            f'masks right, or does --ignore exclude too much?'
        )


def _absent(codes: Sequence[int], kind: str) -> list[str]:
    """Return a note on codes that `--ignore` names and no mask holds."""
    words = ' '.join(format_code(code, kind) for code in codes)
    return [f'--ignore {words} leaves nothing out: no mask holds it'] * bool(codes)


def _empty(rule: MaskRule, chosen: Mapping[int, str], facts: Sequence[ImageStats], source: str) -> list[str]:
    """Return a note on classes without pixels."""
    labels = Labels(rule, tuple(chosen.values()), None)
    held = {index for fact in facts for index in labels.pixels(fact)}
    empty = [name for i, name in enumerate(labels.classes) if i not in held]
    if not empty:
        return []
    few = ', '.join(empty[:SHOWN]) + ', ...' * (len(empty) > SHOWN)
    return [
        f'{len(empty)} classes have no pixel in any mask and cannot be learnt ({few}): remove them from {source}, '
        f'or add masks that contain them'
    ]


def _without_strays(stats: CodeStats, codes: list[int], named: Sequence[ClassEntry]) -> tuple[list[int], list[int]]:
    """Separate codes from those that are not classes and count as the nearest class.

    Raises:
        UsageError: there are such codes, and the codes of the classes are not named.
    """
    grey = stats.kind == 'colours' and not any(item.coloured for item in named)
    given = {item.code * (GREY if grey else 1) for item in named if item.code is not None}
    odd, smoothed = ([], False) if stats.kind == 'binary' else strays(stats, codes, given)
    if odd and len(given) < max(2, len(named)):
        refuse(stats, codes, odd, smoothed)
    if not smoothed:
        return codes, []
    return [code for code in codes if code not in odd], odd


def _not_blurred(kind: str, pixels: Mapping[int, int]) -> None:
    if kind == 'values' and len(pixels) > 16 and pixels.get(0, 0) + pixels.get(255, 0) > 0.9 * sum(pixels.values()):
        raise UsageError(
            f'masks hold {len(pixels)} values, nearly all of their pixels 0 or 255: black and white masks that JPEG or '
            f'resizing blurred; give --binary, which makes 128 and more the class, or export them again as PNG'
        )


def _kind(facts: Sequence[ImageStats], named: Sequence[ClassEntry]) -> str:
    """Return 'values' or 'colours'."""
    if any(item.coloured for item in named):
        return 'colours'
    coloured = [fact for fact in facts if fact.coloured]
    palettes = [fact.palette for fact in facts if fact.palette is not None]
    if coloured:
        grey = not palettes and all(code % GREY == 0 for fact in coloured for code in _codes(fact))
        return 'values' if grey else 'colours'
    longest = max(palettes, key=len, default=())
    alike = all(longest[code] == p[code] for fact, p in _with_palette(facts) for code in _codes(fact))
    return 'values' if alike else 'colours'  # palettes differ between files, so that indices mean nothing


def _codes(fact: ImageStats) -> list[int]:
    return [code for code in fact.counts or () if code != GONE]


def _with_palette(facts: Sequence[ImageStats]) -> list[tuple[ImageStats, tuple[int, ...]]]:
    return [(fact, fact.palette) for fact in facts if fact.palette is not None]


def _ignored(word: str, kind: str, names: Collection[str]) -> int | None:
    """Return the code of an entry of `--ignore`; None for a name."""
    if re.fullmatch(r'\d+,\d+,\d+', word) and kind == 'colours':
        return colour_code([int(v) for v in word.split(',')], word)
    if re.fullmatch(r'-?\d+', word):
        return int(word) * GREY if kind == 'colours' else int(word)
    if word in names:
        return None
    raise UsageError(
        f'--ignore {word} is neither a {"colour R,G,B" if kind == "colours" else "value"} nor a name of --classes'
    )


def _assign_names(rest: Sequence[int], named: Sequence[ClassEntry], source: str, stats: CodeStats) -> dict[int, str]:
    """Return code -> name of each class."""
    kind, pixels = stats.kind, stats.pixels
    if named and all(item.code is not None for item in named):
        scale = GREY if kind == 'colours' and not any(item.coloured for item in named) else 1
        chosen = {item.code * scale: item.name for item in named if item.code is not None}
        if strange := [code for code in rest if code not in chosen]:
            raise UsageError(_strange(strange, kind, pixels, source))
        return chosen
    names = [item.name for item in named]
    pair = len(rest) == 2 and rest in ([0, 255], [0, 1], [0, 255 * GREY])
    if len(names) == 1 and len(rest) == 2:
        return {rest[0]: 'background', rest[1]: names[0]}
    if not names:
        if pair or kind == 'binary':
            return dict(zip(rest, ('background', 'foreground'), strict=False))
        if kind == 'colours' and len(rest) > 256:
            raise UsageError(_strange(rest, kind, pixels, 'the masks'))
        return {code: f'class_{format_code(code, kind).replace(",", "_")}' for code in rest}
    if kind == 'colours':
        raise UsageError(
            f'masks hold {len(rest)} colours ({_some(rest, kind)}), and {source} does not say which is which: give '
            f'--classes {names[0]}={format_code(rest[0], kind)} ..., or a file with a name and a colour in each line'
        )
    return _in_order(rest, names, source)


def _in_order(rest: Sequence[int], names: Sequence[str], source: str) -> dict[int, str]:
    """Assign names to values that are counted from 0 or 1, or are as many as the names."""
    if rest and rest[-1] < len(names):
        return dict(enumerate(names))
    if rest and rest[0] > 0 and rest[-1] == len(names):
        return dict(enumerate(names, 1))
    if len(rest) == len(names):
        return dict(zip(rest, names, strict=True))
    hint = ''
    if len(rest) == len(names) + 1:
        hint = f': which one is ignored? Add --ignore {rest[0]} or --ignore {rest[-1]}, or name them all: --classes '
        hint += f'NAME={rest[0]} '
        hint += ' '.join(f'{name}={code}' for name, code in zip(names[:SHOWN], rest[1:], strict=False))
        hint += ' ...' * (len(names) > SHOWN)
    raise UsageError(
        f'masks hold {len(rest)} values ({_some(rest, "values")}) and {source} has {len(names)} names'
        f'{hint or ": name each value, NAME=VALUE, or exclude some with --ignore VALUE"}'
    )


def _strange(codes: Sequence[int], kind: str, pixels: Mapping[int, int], source: str) -> str:
    what = 'colours' if kind == 'colours' else 'values'
    share = 100 * sum(pixels[code] for code in codes) / max(1, sum(pixels.values()))
    few = _some(sorted(codes, key=lambda code: -pixels[code]), kind)
    first = format_code(max(codes, key=lambda code: pixels[code]), kind)
    blurred = len(codes) > 100
    way = f'name them (NAME={first})' if source == '--classes' else f'add a line for each to {source}'
    advice = (
        'so many come from JPEG or from resizing with interpolation: export the masks again as PNG'
        if blurred
        else f'{way}, or exclude their pixels with --ignore {first} ...'
    )
    return f'masks hold {len(codes)} {what} that are no class of {source}: {few}; {share:.2g} % of all pixels; {advice}'


def _some(codes: Sequence[int], kind: str) -> str:
    return '; '.join(format_code(code, kind) for code in codes[:SHOWN]) + '; ...' * (len(codes) > SHOWN)


def _palette(
    facts: Sequence[ImageStats], codes: Sequence[int], kind: str, named: Sequence[ClassEntry]
) -> tuple[tuple[int, int, int], ...] | None:
    """Return the colours of the classes, if masks or names have colours."""
    if kind == 'colours':
        return tuple(unpack_colour(code) for code in codes)
    longest = max((p for _, p in _with_palette(facts)), key=len, default=())
    if kind != 'values' or not longest or max(codes) >= len(longest) or len({longest[c] for c in codes}) < len(codes):
        return None
    if all(longest[code] % GREY == 0 for code in codes):  # greys that are hard to tell apart
        return None
    return tuple(unpack_colour(longest[code]) for code in codes)
