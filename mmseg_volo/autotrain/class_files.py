"""Files that name classes, as other tools write them: lists, tables, JSON and YAML."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mmseg_volo.autotrain.list_entries import COLUMNS
from mmseg_volo.datasets.lists import HEADING
from mmseg_volo.errors import UsageError
from mmseg_volo.io.text_files import read_lines, read_rows, read_text, unquoted

DATA = ('.json', '.yaml', '.yml')
NUMBER, MARK = r'-?\d+', r'(?:\s*[,;:=|\t]\s*|[.)]\s+|\s+-\s+|\s+)'  # MARK: what stands between a number and a name
SHAPES = ((1, 3), (4, 0), (0, 4), (0, 3), (3, 0), (1, 0), (0, 1), (0, 0))  # how many numbers before and after a name
TUPLE = re.compile(r'(?:rgb)?[\[(]\s*(\d+)\s*,\s*(\d+)\s*,\s*(\d+)\s*[\])]', re.IGNORECASE)
HEX = re.compile(r'#([0-9a-f]{2})([0-9a-f]{2})([0-9a-f]{2})\b', re.IGNORECASE)
CVAT = re.compile(r'(.+?):(?:(\d+),(\d+),(\d+))?:[^:]*:[^:]*')  # name:r,g,b:parts:actions
NAMES = ('readable', 'name', 'classname', 'labelname', 'title', 'class', 'label', 'category', 'classes', 'names')
VALUES = ('pixelvalue', 'value', 'id', 'index', 'idx', 'classid', 'labelid', 'categoryid', 'code', 'pixel', 'number')
COLOURS = ('color', 'colour', 'rgb', 'hex', 'colorrgb', 'hexcolor', 'palette')
RGB = (('r', 'red'), ('g', 'green'), ('b', 'blue'))
WORDS = {*NAMES, *VALUES, *COLOURS, *RGB[0], *RGB[1], *RGB[2]}  # of headings
PLACES = ('id2label', 'labels', 'classes', 'names', 'categories', 'label2id', 'labelmap', 'classnames')


@dataclass(frozen=True)
class ClassEntry:
    """A class as the user names it, with the value or colour that stands for it, if it is said."""

    name: str
    code: int | None = None  # a value, or 0xRRGGBB
    coloured: bool = False
    colour: int | None = None  # 0xRRGGBB, beside a value or alone: masks may hold the one or the other


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


def names_in(path: Path) -> list[ClassEntry]:
    """The classes that a file names, in its order; none if it is not understood as such a file.

    Raises:
        UsageError: it is no text, or what it says of a class cannot be.
    """
    if path.suffix.lower() in DATA:
        return _of_data(_parsed(path)) or []
    rows = read_rows(path)
    if not rows or {_plain(cell) for cell in rows[0]} & {_plain(word) for word in COLUMNS['image']}:
        return []  # a table of images
    heading = [_plain(cell) for cell in rows[0]]
    if len(heading) > 1 and set(NAMES) & {*heading} and len(rows) > 1:
        return _of_table(heading, rows, path)
    lines = read_lines(path)
    return _of_lines([line for i, line in enumerate(lines) if not re.match(r'#(?!\d)' if i == 0 else '# ', line)], path)


def _parsed(path: Path) -> Any:
    text = read_text(path)
    try:
        return json.loads(text) if path.suffix.lower() == '.json' else yaml.safe_load(text)
    except (ValueError, yaml.YAMLError, RecursionError):
        return None


def _plain(word: Any) -> str:
    return re.sub(r'[^a-z0-9]', '', str(word).lower())


def colour_in(text: Any) -> int | None:
    """0xRRGGBB of `#RRGGBB`, `R,G,B`, `(R, G, B)` or three numbers; None of what is no colour."""
    if isinstance(text, str):
        if match := HEX.fullmatch(text.strip()):
            return int(''.join(match.groups()), 16)
        parts = re.fullmatch(r'(?:rgb)?[\[(\s]*(\d+)[\s,;]+(\d+)[\s,;]+(\d+)[\])\s]*', text)
        return colour_code([int(part) for part in parts.groups()], text) if parts else None
    if (
        isinstance(text, (list, tuple))
        and len(text) in (3, 4)
        and all(type(part) is int and part >= 0 for part in text)
    ):
        return colour_code(text[:3], str(text))
    return None


def _of_lines(lines: list[str], path: Path) -> list[ClassEntry]:
    """Lines of a name, a value and a name, or a name and a colour, in one order and with any marks between."""
    if lines and all(map(CVAT.fullmatch, lines)):
        parts = [match.groups() for line in lines if (match := CVAT.fullmatch(line))]
        return [
            ClassEntry(name, colour_code([int(v) for v in rgb], name), True) if rgb[0] else ClassEntry(name)
            for name, *rgb in parts
        ]
    plain = [HEX.sub(_spaced, TUPLE.sub(r' \1 \2 \3 ', line)) for line in lines]
    for before, after in SHAPES[:-1]:
        rows = [_parts(line, before, after) for line in plain]
        if len(rows) > 1 and rows[0] is None and set(map(_plain, re.split(MARK, plain[0]))) & WORDS:
            rows = rows[1:]  # the heading of a table
        if rows and (found := _of_numbers(rows, before)):
            return found
    if len(lines) > 1 and _plain(lines[0]) in NAMES:
        lines = lines[1:]
    if odd := next((line for line in lines if re.fullmatch(r'[-\d\s.,;:]+', line)), None):
        raise UsageError(f'{path}: {odd!r} is no name of a class; expected a name, and its value or colour or nothing')
    if len(lines) == 1 and len(words := lines[0].split(',')) > 2:  # all in one line
        lines = [word for part in words if (word := unquoted(part))]
    return [ClassEntry(line) for line in lines]


def _spaced(match: re.Match[str]) -> str:
    return ' ' + ' '.join(str(int(part, 16)) for part in match.groups()) + ' '


def _parts(line: str, before: int, after: int) -> tuple[str, list[int]] | None:
    """A name and the numbers around it; None if a line is no such one."""
    match = re.fullmatch(
        rf'((?:{NUMBER}{MARK}){{{before}}})\s*(.+?)((?:{MARK}{NUMBER}){{{after}}})[\s,;:|]*', line.strip()
    )
    if match is None or re.fullmatch(r'[-\d\s.,;:]*', match[2]):
        return None
    return unquoted(match[2]), [int(number) for number in re.findall(NUMBER, f'{match[1]} {match[3]}')]


def _of_numbers(rows: list[tuple[str, list[int]] | None], before: int) -> list[ClassEntry]:
    """Classes with these numbers; none where they are no values or colours, but belong to the names."""
    found = [row for row in rows if row is not None]
    if len(found) < len(rows):
        return []
    if len(found[0][1]) == 1:
        values = [numbers[0] for _, numbers in found]
        sure = before or (len({*values}) == len({name for name, _ in found}) == len({str(row) for row in found}))
        return [ClassEntry(name, numbers[0]) for name, numbers in found] if sure else []
    if len({name for name, _ in found}) < len({str(row) for row in found}):
        return []  # `class 1 0 0 0`: the name ends in a number
    colours = [numbers[:3] if before == 3 else numbers[-3:] for _, numbers in found]
    values = [numbers[0] for _, numbers in found]
    if len(found[0][1]) == 4 and not before and len({numbers[3] for _, numbers in found}) == 1 < len(found):
        colours, values = [numbers[:3] for _, numbers in found], []  # RGBA
    if len(found[0][1]) == 3 or not values:
        return [ClassEntry(name, colour_code(c, name), True) for (name, _), c in zip(found, colours, strict=True)]
    return [
        ClassEntry(name, value, colour=colour_code(c, name))
        for (name, _), value, c in zip(found, values, colours, strict=True)
    ]


def _of_table(heading: list[str], rows: list[list[str]], path: Path) -> list[ClassEntry]:
    """Classes of a table with a heading."""
    cells = [row + [''] * (len(heading) - len(row)) for row in rows[1:]]
    numeric = {i for i in range(len(heading)) if all(re.fullmatch(NUMBER, row[i]) for row in cells)}
    name = next((heading.index(word) for word in NAMES if word in heading and heading.index(word) not in numeric), None)
    if name is None:
        return []
    value = next((heading.index(word) for word in (*VALUES, *NAMES) if word in heading and word != heading[name]), None)
    colour = next((heading.index(word) for word in COLOURS if word in heading), None)
    rgb = [next((heading.index(word) for word in words if word in heading), None) for words in RGB]
    found = []
    for row in cells:
        if not row[name] and heading == [*HEADING]:
            continue  # our own table of classes: what is ignored
        code = painted = None
        if value is not None and re.fullmatch(NUMBER, row[value]):
            code = int(row[value])
        if None not in rgb:
            painted = colour_in(' '.join(row[i] for i in rgb if i is not None))
        elif colour is not None:
            painted = colour_in(row[colour])
        if value is not None and code is None:
            code, painted = None, colour_in(row[value]) if painted is None else painted
        if (value is not None or None not in rgb) and code is None and painted is None:
            raise UsageError(f'{path}: no number stands for {row[name]!r} ({", ".join(row)})')
        found.append(_named(row[name], code, painted))
    return found


def _named(name: str, code: int | None, colour: int | None) -> ClassEntry:
    return (
        ClassEntry(name, colour, True) if code is None and colour is not None else ClassEntry(name, code, colour=colour)
    )


def _of_data(data: Any) -> list[ClassEntry] | None:
    """Classes of JSON or YAML; None if it holds none."""
    if isinstance(data, list) and data:
        if all(isinstance(item, str) for item in data):
            return [ClassEntry(item) for item in data]
        return _items(data) if all(isinstance(item, Mapping) for item in data) else None
    if not isinstance(data, Mapping) or not data:
        return None
    places = {_plain(key): value for key, value in data.items() if isinstance(value, (list, Mapping))}
    for place in PLACES:
        if found := _of_data(places.get(place)):
            return found
    keys, values = [str(key) for key in data], [*data.values()]
    if all(isinstance(value, str) for value in values):
        if all(re.fullmatch(NUMBER, key) for key in keys):
            return [ClassEntry(value, int(key)) for key, value in zip(keys, values, strict=True)]
        if all(colour_in(key) is not None for key in keys):
            return [ClassEntry(value, colour_in(key), True) for key, value in zip(keys, values, strict=True)]
    if all(type(value) is int for value in values):
        return [ClassEntry(key, value) for key, value in zip(keys, values, strict=True)]
    if all(colour_in(value) is not None for value in values):
        return [ClassEntry(key, colour_in(value), True) for key, value in zip(keys, values, strict=True)]
    if all(isinstance(value, Mapping) for value in values):
        inside = 'id' if all(re.fullmatch(NUMBER, key) for key in keys) else 'name'
        return _items([{inside: key, **value} for key, value in zip(keys, values, strict=True)])
    return None


def _items(items: Sequence[Mapping[str, Any]]) -> list[ClassEntry] | None:
    """Classes of mappings of a name, a value and a colour."""
    found = []
    for item in items:
        plain = {_plain(key): value for key, value in item.items()}
        name = next((plain[word] for word in NAMES if isinstance(plain.get(word), str)), None)
        if name is None:
            return None
        value = next((plain[word] for word in VALUES if re.fullmatch(NUMBER, str(plain.get(word)))), None)
        if 'shape' in plain:
            value = None  # of Supervisely's data base, not of its masks
        colour = next((colour_in(plain[word]) for word in COLOURS if word in plain), None)
        found.append(ClassEntry(name, None if value is None else int(value), colour=colour))
    return found
