"""What the values and colours in masks mean: classes, what is ignored, or a question to the user."""

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

VOID = ('void', 'ignore', 'ignored', 'unlabeled', 'unlabelled', 'unknown', 'dontcare', 'dont care', 'border', 'nodata')
VOID += (LABELME,)
SHOWN = 8  # names that a note lists


@dataclass(frozen=True)
class Labels:
    """What masks mean."""

    rule: MaskRule
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...] | None  # RGB
    notes: list[str] = field(default_factory=list)

    def pixels(self, facts: ImageStats) -> dict[int, int]:
        """Index of a class, or of what is ignored -> pixels of a mask."""
        pixels = facts.counts_as(self.rule.kind)
        found: Counter[int] = Counter()
        for index, n in zip(self.rule.indices_of(np.array([*pixels], np.int64)).tolist(), pixels.values(), strict=True):
            found[index] += n
        return dict(found)


def infer_label_map(
    facts: Sequence[ImageStats], named: Sequence[ClassEntry], source: str, ignore: Sequence[str], binary: bool
) -> Labels:
    """Decides what masks mean.

    Args:
        facts: of all images with masks.
        named: see `read_names`.
        source: where they stand.
        ignore: values, colours `R,G,B` or names of classes that do not count.
        binary: whether masks are black and white, with blurred values between.

    Raises:
        UsageError: it cannot be told; says what to add to the command.
    """
    kind = 'binary' if binary else _kind(facts, named)
    named = painted(named) if kind == 'colours' else named
    seen = code_stats(facts, kind)
    _not_blurred(kind, seen.pixels)
    by_name = {item.name for item in named if item.name.lower() in VOID or item.name in ignore}
    ignored = {_ignored(word, kind, by_name) for word in ignore} - {None}
    absent = _absent(sorted(ignored - seen.pixels.keys()), kind)
    named = [item for item in named if item.code is None or item.code not in ignored]
    rest, notes = sorted(seen.pixels.keys() - ignored), []
    if kind == 'values':
        found, notes = void_values(seen, rest, named, bool(ignore))
        ignored |= found
        rest = [code for code in rest if code not in found]
    rest, odd = _without_strays(seen, rest, named)
    chosen = _assign_names(rest, named, source, seen)
    ignored |= {code for code, name in chosen.items() if name in by_name}
    notes += [
        f'{name} is ignored, by its name ({100 * seen.share(code):.2g} % of all pixels)'
        for code, name in chosen.items()
        if name in by_name
    ]
    notes += absent
    if odd:
        notes.append(settled(seen, odd, [*chosen, *(ignored - chosen.keys())]))
    if seen.gone:
        notes.append(f'{seen.gone} pixels of masks are ignored, as they are no number, or have no data in the image')
    chosen = {code: name for code, name in chosen.items() if name not in by_name}
    _several(chosen)
    plain = (lambda code: list(unpack_colour(code))) if kind == 'colours' else int
    rule = MaskRule(kind, [plain(code) for code in chosen], [plain(code) for code in sorted(ignored)], bool(odd))
    notes += _empty(rule, chosen, facts, source)
    return Labels(rule, tuple(chosen.values()), _palette(facts, [*chosen], kind, named), notes)


def _several(chosen: Mapping[int, str]) -> None:
    """Raises a `UsageError` unless there are two classes."""
    if len(chosen) < 2:
        raise UsageError(
            f'masks hold one class only ({", ".join(chosen.values()) or "none"}), from which nothing can be told '
            f'apart: are the masks right, or is --ignore too wide?'
        )


def _absent(codes: Sequence[int], kind: str) -> list[str]:
    """A note of what `--ignore` names and no mask holds."""
    words = ' '.join(format_code(code, kind) for code in codes)
    return [f'--ignore {words} leaves nothing out: no mask holds it'] * bool(codes)


def _empty(rule: MaskRule, chosen: Mapping[int, str], facts: Sequence[ImageStats], source: str) -> list[str]:
    """A note of the classes without pixels."""
    labels = Labels(rule, tuple(chosen.values()), None)
    held = {index for fact in facts for index in labels.pixels(fact)}
    empty = [name for i, name in enumerate(labels.classes) if i not in held]
    if not empty:
        return []
    few = ', '.join(empty[:SHOWN]) + ', ...' * (len(empty) > SHOWN)
    return [
        f'{len(empty)} classes have no pixel in any mask and will not be learnt ({few}): leave them out of {source}, '
        f'or add masks that hold them'
    ]


def _without_strays(seen: CodeStats, codes: list[int], named: Sequence[ClassEntry]) -> tuple[list[int], list[int]]:
    """Codes without those that are no classes, and these, which count as the nearest ones.

    Raises:
        UsageError: there are some, and no codes are named that could be nearest.
    """
    grey = seen.kind == 'colours' and not any(item.coloured for item in named)
    said = {item.code * (GREY if grey else 1) for item in named if item.code is not None}
    odd, smoothed = ([], False) if seen.kind == 'binary' else strays(seen, codes, said)
    if odd and len(said) < max(2, len(named)):
        refuse(seen, codes, odd, smoothed)
    if not smoothed:
        return codes, []
    return [code for code in codes if code not in odd], odd


def _not_blurred(kind: str, pixels: Mapping[int, int]) -> None:
    if kind == 'values' and len(pixels) > 16 and pixels.get(0, 0) + pixels.get(255, 0) > 0.9 * sum(pixels.values()):
        raise UsageError(
            f'masks hold {len(pixels)} values, nearly all of their pixels 0 or 255: black and white that was blurred, '
            f'as JPEG or resizing do; --binary takes 128 and more as the class, or make them anew as PNG'
        )


def _kind(facts: Sequence[ImageStats], named: Sequence[ClassEntry]) -> str:
    """'values' or 'colours'."""
    if any(item.coloured for item in named):
        return 'colours'
    coloured = [fact for fact in facts if fact.coloured]
    palettes = [fact.palette for fact in facts if fact.palette is not None]
    if coloured:
        grey = not palettes and all(code % GREY == 0 for fact in coloured for code in _codes(fact))
        return 'values' if grey else 'colours'
    longest = max(palettes, key=len, default=())
    alike = all(longest[code] == p[code] for fact, p in _with_palette(facts) for code in _codes(fact))
    return 'values' if alike else 'colours'  # a palette of each file's own: its indices mean nothing


def _codes(fact: ImageStats) -> list[int]:
    return [code for code in fact.counts or () if code != GONE]


def _with_palette(facts: Sequence[ImageStats]) -> list[tuple[ImageStats, tuple[int, ...]]]:
    return [(fact, fact.palette) for fact in facts if fact.palette is not None]


def _ignored(word: str, kind: str, names: Collection[str]) -> int | None:
    """The code of an entry of `--ignore`; None of a name."""
    if re.fullmatch(r'\d+,\d+,\d+', word) and kind == 'colours':
        return colour_code([int(v) for v in word.split(',')], word)
    if re.fullmatch(r'-?\d+', word):
        return int(word) * GREY if kind == 'colours' else int(word)
    if word in names:
        return None
    raise UsageError(
        f'--ignore {word} is no {"colour R,G,B" if kind == "colours" else "value"} and no name of --classes'
    )


def _assign_names(rest: Sequence[int], named: Sequence[ClassEntry], source: str, seen: CodeStats) -> dict[int, str]:
    """Code -> name of each class."""
    kind, pixels = seen.kind, seen.pixels
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
    """Names for values that are counted from 0, from 1, or just as many."""
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
        f'{hint or ": name each value, NAME=VALUE, or leave some out with --ignore VALUE"}'
    )


def _strange(codes: Sequence[int], kind: str, pixels: Mapping[int, int], source: str) -> str:
    what = 'colours' if kind == 'colours' else 'values'
    share = 100 * sum(pixels[code] for code in codes) / max(1, sum(pixels.values()))
    few = _some(sorted(codes, key=lambda code: -pixels[code]), kind)
    first = format_code(max(codes, key=lambda code: pixels[code]), kind)
    blurred = len(codes) > 100
    way = f'name them (NAME={first})' if source == '--classes' else f'add a line for each to {source}'
    advice = (
        'so many come from JPEG or from resizing with interpolation: make the masks anew as PNG'
        if blurred
        else f'{way}, or leave their pixels out with --ignore {first} ...'
    )
    return f'masks hold {len(codes)} {what} that are no class of {source}: {few}; {share:.2g} % of all pixels; {advice}'


def _some(codes: Sequence[int], kind: str) -> str:
    return '; '.join(format_code(code, kind) for code in codes[:SHOWN]) + '; ...' * (len(codes) > SHOWN)


def _palette(
    facts: Sequence[ImageStats], codes: Sequence[int], kind: str, named: Sequence[ClassEntry]
) -> tuple[tuple[int, int, int], ...] | None:
    """The colours of the classes, where masks or names have some."""
    if kind == 'colours':
        return tuple(unpack_colour(code) for code in codes)
    longest = max((p for _, p in _with_palette(facts)), key=len, default=())
    if kind != 'values' or not longest or max(codes) >= len(longest) or len({longest[c] for c in codes}) < len(codes):
        return None
    if all(longest[code] % GREY == 0 for code in codes):  # grey steps that nobody can tell apart
        return None
    return tuple(unpack_colour(longest[code]) for code in codes)
