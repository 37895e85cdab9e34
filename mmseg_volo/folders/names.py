"""The names of classes as a user gives them: by `--classes`, or in a file of the data."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mmseg_volo.errors import UsageError

FILES = ('classes.txt', 'labels.txt', 'class_dict.csv', 'classes.csv', 'label_colors.txt', 'labelmap.txt', 'names.txt')


@dataclass(frozen=True)
class Named:
    """A class as the user names it, with the value or colour that stands for it, if it is said."""

    name: str
    code: int | None = None  # a value, or 0xRRGGBB
    coloured: bool = False


def read_names(given: Sequence[str], root: Path) -> tuple[list[Named], str]:
    """The classes as `--classes` or a file in the folder names them, and where they stand.

    Args:
        given: names, `NAME=VALUE`, `NAME=R,G,B`, or one file.
        root: folder of the data, where such files are looked for.

    Raises:
        UsageError: a name stands twice, or a file holds none.
    """
    if len(given) == 1 and Path(given[0]).is_file():
        named, source = _of_file(Path(given[0])), given[0]
    elif given:
        named, source = [_of_word(word) for word in given], '--classes'
    else:
        path = next((root / name for name in FILES if (root / name).is_file()), None)
        if path is None:
            return [], ''
        named, source = _of_file(path), path.name
    double = [name for name, n in Counter(item.name for item in named).items() if n > 1]
    if double or not named:
        raise UsageError(f'{source}: {f"the class {double[0]} stands twice" if double else "it names no class"}')
    return named, source


def _of_word(word: str) -> Named:
    if m := re.fullmatch(r'(.+)=(-?\d+)', word):
        return Named(m[1], int(m[2]))
    if m := re.fullmatch(r'(.+)=(\d+),(\d+),(\d+)', word):
        return Named(m[1], colour_code([int(v) for v in m.groups()[1:]], word), True)
    return Named(word)


def _of_file(path: Path) -> list[Named]:
    """Lines of a name, a value and a name, or a name and a colour, in any order and with any marks between."""
    found = []
    for line in path.read_text(encoding='utf-8-sig').splitlines():
        parts = [part for part in re.split(r'[,;:\t]\s*|\s+', line.strip()) if part]
        numbers = [int(part) for part in parts if part.isdecimal()]
        name = ' '.join(part for part in parts if not part.isdecimal())
        if not name or line.startswith('#'):
            continue
        if len(numbers) >= 3:
            found.append(Named(name, colour_code(numbers[-3:], line), True))  # a number may come first
        elif numbers:
            found.append(Named(name, numbers[0]))
        else:
            found.append(Named(name))
    if len({item.code is None for item in found}) > 1 and found[0].code is None:
        found = found[1:]  # the heading of a table
    return found


def colour_code(values: Sequence[int], said: str) -> int:
    """0xRRGGBB of a colour (R, G, B).

    Args:
        values: of the colour.
        said: where they were read, for the error.

    Raises:
        UsageError: one is beyond 255.
    """
    if max(values) > 255:
        raise UsageError(f'{said!r} names a colour beyond 255')
    return (values[0] << 16) | (values[1] << 8) | values[2]
