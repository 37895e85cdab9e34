"""What the values and colours in masks mean: classes, what is ignored, or a question to the user."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from mmseg_volo.errors import UsageError
from mmseg_volo.folders.look import Facts
from mmseg_volo.folders.masks import GREY, MaskRule, shown, unpack
from mmseg_volo.folders.name_files import Named, colour_code
from mmseg_volo.folders.names import LABELME, painted

VOID = ('void', 'ignore', 'ignored', 'unlabeled', 'unlabelled', 'unknown', 'dontcare', 'dont care', 'border', 'nodata')
VOID += (LABELME,)
USUAL = (255, 65535)  # values that mean 'ignored' where they stand apart from the others
SHOWN = 8


@dataclass(frozen=True)
class Labels:
    """What masks mean."""

    rule: MaskRule
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...] | None  # RGB
    notes: list[str] = field(default_factory=list)

    def pixels(self, facts: Facts) -> dict[int, int]:
        """Index of a class, or of what is ignored -> pixels of a mask."""
        found: Counter[int] = Counter()
        for code, n in facts.recoded(self.rule.kind).items():
            found[self.rule.index[code]] += n
        return dict(found)


def understand(
    facts: Sequence[Facts], named: Sequence[Named], source: str, ignore: Sequence[str], binary: bool
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
    pixels: Counter[int] = Counter()
    for fact in facts:
        pixels.update(fact.recoded(kind))
    _not_blurred(kind, pixels)
    by_name = {item.name for item in named if item.name.lower() in VOID or item.name in ignore}
    ignored = {_ignored(word, kind, by_name) for word in ignore} - {None}
    named = [item for item in named if item.code is None or item.code not in ignored]
    rest, notes = sorted(pixels.keys() - ignored), []
    if kind == 'values' and not ignore:
        rest, found, notes = _usual(rest, len(named), any(item.code in USUAL for item in named))
        ignored |= found
    chosen = _match(rest, named, source, kind, pixels)
    ignored |= {code for code, name in chosen.items() if name in by_name}
    notes += [f'{name} is ignored, by its name' for name in chosen.values() if name in by_name]
    chosen = {code: name for code, name in chosen.items() if name not in by_name}
    if len(chosen) < 2:
        raise UsageError(
            f'masks hold one class only ({", ".join(chosen.values()) or "none"}), from which nothing can be told '
            f'apart: are the masks right, or is --ignore too wide?'
        )
    plain = (lambda code: list(unpack(code))) if kind == 'colours' else int
    rule = MaskRule(kind, [plain(code) for code in chosen], [plain(code) for code in sorted(ignored)])
    empty = [name for code, name in chosen.items() if not pixels[code]]
    if empty:
        few = ', '.join(empty[:SHOWN]) + ', ...' * (len(empty) > SHOWN)
        notes.append(
            f'{len(empty)} classes have no pixel in any mask and will not be learnt ({few}): leave them out of '
            f'{source}, or add masks that hold them'
        )
    return Labels(rule, tuple(chosen.values()), _palette(facts, [*chosen], kind, named), notes)


def _not_blurred(kind: str, pixels: Mapping[int, int]) -> None:
    if kind == 'values' and len(pixels) > 16 and pixels.get(0, 0) + pixels.get(255, 0) > 0.9 * sum(pixels.values()):
        raise UsageError(
            f'masks hold {len(pixels)} values, nearly all of their pixels 0 or 255: black and white that was blurred, '
            f'as JPEG or resizing do; --binary takes 128 and more as the class, or make them anew as PNG'
        )


def _kind(facts: Sequence[Facts], named: Sequence[Named]) -> str:
    """'values' or 'colours'."""
    if any(item.coloured for item in named):
        return 'colours'
    coloured = [fact for fact in facts if fact.coloured]
    palettes = [fact.palette for fact in facts if fact.palette is not None]
    if coloured:
        grey = not palettes and all(code % GREY == 0 for fact in coloured for code in fact.counts or ())
        return 'values' if grey else 'colours'
    longest = max(palettes, key=len, default=())
    alike = all(longest[code] == p[code] for fact, p in _with_palette(facts) for code in fact.counts or ())
    return 'values' if alike else 'colours'  # a palette of each file's own: its indices mean nothing


def _with_palette(facts: Sequence[Facts]) -> list[tuple[Facts, tuple[int, ...]]]:
    return [(fact, fact.palette) for fact in facts if fact.palette is not None]


def _ignored(word: str, kind: str, names: Collection[str]) -> int | None:
    """The code of an entry of `--ignore`; None of a name."""
    if re.fullmatch(r'\d+,\d+,\d+', word) and kind == 'colours':
        return colour_code([int(v) for v in word.split(',')], word)
    if word.isdecimal():
        return int(word) * GREY if kind == 'colours' else int(word)
    if word in names:
        return None
    raise UsageError(
        f'--ignore {word} is no {"colour R,G,B" if kind == "colours" else "value"} and no name of --classes'
    )


def _usual(values: list[int], classes: int, is_class: bool) -> tuple[list[int], set[int], list[str]]:
    """Values without the one that usually means 'ignored'."""
    high = values[-1] if values else 0
    others = values[:-1]
    if is_class or high not in USUAL or not others or high == others[-1] + 1 or len(values) <= classes:
        return values, set(), []
    if len(values) == 2 and others[0] == 0 and classes != 1:  # black and white
        return values, set(), []
    if len(others) == 1:
        return values, set(), []
    return others, {high}, [f'{high} is ignored, as it stands apart from the other values; --ignore says otherwise']


def _match(
    rest: Sequence[int], named: Sequence[Named], source: str, kind: str, pixels: Mapping[int, int]
) -> dict[int, str]:
    """Code -> name of each class."""
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
        return {code: f'class_{shown(code, kind).replace(",", "_")}' for code in rest}
    if kind == 'colours':
        raise UsageError(
            f'masks hold {len(rest)} colours ({_some(rest, kind)}), and {source} does not say which is which: give '
            f'--classes {names[0]}={shown(rest[0], kind)} ..., or a file with a name and a colour in each line'
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
        hint = f': which one is ignored? Add --ignore {rest[0]} or --ignore {rest[-1]}, or name them all'
    raise UsageError(
        f'masks hold {len(rest)} values ({_some(rest, "values")}) and {source} has {len(names)} names'
        f'{hint or ": name each value, NAME=VALUE, or leave some out with --ignore VALUE"}'
    )


def _strange(codes: Sequence[int], kind: str, pixels: Mapping[int, int], source: str) -> str:
    what = 'colours' if kind == 'colours' else 'values'
    share = 100 * sum(pixels[code] for code in codes) / max(1, sum(pixels.values()))
    few = _some(sorted(codes, key=lambda code: -pixels[code]), kind)
    first = shown(max(codes, key=lambda code: pixels[code]), kind)
    blurred = len(codes) > 100
    advice = (
        'so many come from JPEG or from resizing with interpolation: make the masks anew as PNG'
        if blurred
        else f'name them (NAME={first}), or leave their pixels out with --ignore {first} ...'
    )
    return f'masks hold {len(codes)} {what} that are no class of {source}: {few}; {share:.2g} % of all pixels; {advice}'


def _some(codes: Sequence[int], kind: str) -> str:
    return '; '.join(shown(code, kind) for code in codes[:SHOWN]) + '; ...' * (len(codes) > SHOWN)


def _palette(
    facts: Sequence[Facts], codes: Sequence[int], kind: str, named: Sequence[Named]
) -> tuple[tuple[int, int, int], ...] | None:
    """The colours of the classes, where masks or names have some."""
    if kind == 'colours':
        return tuple(unpack(code) for code in codes)
    longest = max((p for _, p in _with_palette(facts)), key=len, default=())
    if kind != 'values' or not longest or max(codes) >= len(longest) or len({longest[c] for c in codes}) < len(codes):
        return None
    if all(longest[code] % GREY == 0 for code in codes):  # grey steps that nobody can tell apart
        return None
    return tuple(unpack(longest[code]) for code in codes)
