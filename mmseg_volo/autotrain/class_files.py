"""Read class names from files that other tools write: lists, tables, JSON and YAML."""

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
NUMBER, MARK = r'-?\d+', r'(?:\s*[,;:=|\t]\s*|[.)]\s+|\s+-\s+|\s+)'  # MARK: separates a number and a name
SHAPES = ((1, 3), (4, 0), (0, 4), (0, 3), (3, 0), (1, 0), (0, 1), (0, 0))  # how many numbers before and after a name
TUPLE = re.compile(r'(?:rgb)?[\[(]\s*(\d+)\s*,\s*(\d+)\s*,\s*(\d+)\s*[\])]', re.IGNORECASE)
HEX = re.compile(r'#([0-9a-f]{2})([0-9a-f]{2})([0-9a-f]{2})\b', re.IGNORECASE)
CVAT = re.compile(r'(.+?):(?:(\d+),(\d+),(\d+))?:[^:]*:[^:]*')  # name:r,g,b:parts:actions
NAMES = ('readable', 'name', 'classname', 'labelname', 'title', 'class', 'label', 'category', 'classes', 'names')
VALUES = ('pixelvalue', 'value', 'id', 'index', 'idx', 'classid', 'labelid', 'categoryid', 'code', 'pixel', 'number')
COLOURS = ('color', 'colour', 'rgb', 'hex', 'colorrgb', 'hexcolor', 'palette')
RGB = (('r', 'red'), ('g', 'green'), ('b', 'blue'))
WORDS = {*NAMES, *VALUES, *COLOURS, *RGB[0], *RGB[1], *RGB[2]}  # of headings
KEYS = (  # under which JSON and YAML hold classes
    'id2label',
    'labels',
    'classes',
    'names',
    'categories',
    'label2id',
    'labelmap',
    'classnames',
)


@dataclass(frozen=True)
class ClassEntry:
    """A class as the user names it, with its value or colour in masks if that is given."""

    name: str
    code: int | None = None  # a value, or 0xRRGGBB
    coloured: bool = False  # whether `code` is a colour
    colour: int | None = None  # 0xRRGGBB, beside a value or alone: masks may hold either


def colour_code(values: Sequence[int], source: str) -> int:
    """Return 0xRRGGBB of a colour (R, G, B).

    Args:
        values: of the colour.
        source: the text they were read from, for the error.

    Raises:
        UsageError: one exceeds 255.
    """
    if max(values) > 255:
        raise UsageError(f'{source!r} names a colour beyond 255')
    return (values[0] << 16) | (values[1] << 8) | values[2]


def names_in(path: Path) -> list[ClassEntry]:
    """Return the classes that a file names, in its order; none if its format is not recognised.

    Raises:
        UsageError: it is not text, or gives a class an impossible value or colour.
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
    """Return 0xRRGGBB of `#RRGGBB`, `R,G,B`, `(R, G, B)` or three numbers; None of anything else."""
    if isinstance(text, str):
        if match := HEX.fullmatch(text.strip()):
            return int(''.join(match.groups()), 16)
        numbers = re.fullmatch(r'(?:rgb)?[\[(\s]*(\d+)[\s,;]+(\d+)[\s,;]+(\d+)[\])\s]*', text)
        return colour_code([int(n) for n in numbers.groups()], text) if numbers else None
    if isinstance(text, (list, tuple)) and len(text) in (3, 4) and all(type(n) is int and n >= 0 for n in text):
        return colour_code(text[:3], str(text))
    return None


def _of_lines(lines: list[str], path: Path) -> list[ClassEntry]:
    """Read lines of a name, a value and a name, or a name and a colour, all in one order, with any separators."""
    if lines and all(map(CVAT.fullmatch, lines)):
        rows = [match.groups() for line in lines if (match := CVAT.fullmatch(line))]
        return [
            ClassEntry(name, colour_code([int(v) for v in rgb], name), True) if rgb[0] else ClassEntry(name)
            for name, *rgb in rows
        ]
    plain = [HEX.sub(_spaced, TUPLE.sub(r' \1 \2 \3 ', line)) for line in lines]
    for before, after in SHAPES[:-1]:
        parsed = [_name_and_numbers(line, before, after) for line in plain]
        if len(parsed) > 1 and parsed[0] is None and set(map(_plain, re.split(MARK, plain[0]))) & WORDS:
            parsed = parsed[1:]  # the heading of a table
        if parsed and (classes := _of_numbers(parsed, before)):
            return classes
    if len(lines) > 1 and _plain(lines[0]) in NAMES:
        lines = lines[1:]
    if odd := next((line for line in lines if re.fullmatch(r'[-\d\s.,;:]+', line)), None):
        raise UsageError(f'{path}: {odd!r} is not a class name; expected a name, with or without its value or colour')
    if len(lines) == 1 and len(words := lines[0].split(',')) > 2:  # all in one line
        lines = [name for word in words if (name := unquoted(word))]
    return [ClassEntry(line) for line in lines]


def _spaced(match: re.Match[str]) -> str:
    return ' ' + ' '.join(str(int(channel, 16)) for channel in match.groups()) + ' '


def _name_and_numbers(line: str, before: int, after: int) -> tuple[str, list[int]] | None:
    """Split a line into a name and the numbers around it; None if it has another form."""
    match = re.fullmatch(
        rf'((?:{NUMBER}{MARK}){{{before}}})\s*(.+?)((?:{MARK}{NUMBER}){{{after}}})[\s,;:|]*', line.strip()
    )
    if match is None or re.fullmatch(r'[-\d\s.,;:]*', match[2]):
        return None
    return unquoted(match[2]), [int(number) for number in re.findall(NUMBER, f'{match[1]} {match[3]}')]


def _of_numbers(rows: list[tuple[str, list[int]] | None], before: int) -> list[ClassEntry]:
    """Return classes with these numbers; none if the numbers belong to the names."""
    matched = [row for row in rows if row is not None]
    if len(matched) < len(rows):
        return []
    if len(matched[0][1]) == 1:
        values = [numbers[0] for _, numbers in matched]
        sure = before or (len({*values}) == len({name for name, _ in matched}) == len({str(row) for row in matched}))
        return [ClassEntry(name, numbers[0]) for name, numbers in matched] if sure else []
    if len({name for name, _ in matched}) < len({str(row) for row in matched}):
        return []  # `class 1 0 0 0`: the name ends in a number
    colours = [numbers[:3] if before == 3 else numbers[-3:] for _, numbers in matched]
    values = [numbers[0] for _, numbers in matched]
    if len(matched[0][1]) == 4 and not before and len({numbers[3] for _, numbers in matched}) == 1 < len(matched):
        colours, values = [numbers[:3] for _, numbers in matched], []  # RGBA
    if len(matched[0][1]) == 3 or not values:
        return [ClassEntry(name, colour_code(c, name), True) for (name, _), c in zip(matched, colours, strict=True)]
    return [
        ClassEntry(name, value, colour=colour_code(c, name))
        for (name, _), value, c in zip(matched, values, colours, strict=True)
    ]


def _of_table(heading: list[str], rows: list[list[str]], path: Path) -> list[ClassEntry]:
    """Read the classes of a table with a heading."""
    cells = [row + [''] * (len(heading) - len(row)) for row in rows[1:]]
    numeric = {i for i in range(len(heading)) if all(re.fullmatch(NUMBER, row[i]) for row in cells)}
    name = next((heading.index(word) for word in NAMES if word in heading and heading.index(word) not in numeric), None)
    if name is None:
        return []
    value = next((heading.index(word) for word in (*VALUES, *NAMES) if word in heading and word != heading[name]), None)
    colour = next((heading.index(word) for word in COLOURS if word in heading), None)
    rgb = [next((heading.index(word) for word in words if word in heading), None) for words in RGB]
    classes = []
    for row in cells:
        if not row[name] and heading == [*HEADING]:
            continue  # ignored codes in a table that a recipe wrote
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
            raise UsageError(f'{path}: {row[name]!r} has no value or colour ({", ".join(row)})')
        classes.append(_named(row[name], code, painted))
    return classes


def _named(name: str, code: int | None, colour: int | None) -> ClassEntry:
    return (
        ClassEntry(name, colour, True) if code is None and colour is not None else ClassEntry(name, code, colour=colour)
    )


def _of_data(data: Any) -> list[ClassEntry] | None:
    """Read the classes of JSON or YAML; None if it holds none."""
    if isinstance(data, list) and data:
        if all(isinstance(item, str) for item in data):
            return [ClassEntry(item) for item in data]
        return _items(data) if all(isinstance(item, Mapping) for item in data) else None
    if not isinstance(data, Mapping) or not data:
        return None
    nested = {_plain(key): value for key, value in data.items() if isinstance(value, (list, Mapping))}
    for key in KEYS:
        if classes := _of_data(nested.get(key)):
            return classes
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
    """Read mappings of a name, a value and a colour; None if one has no name."""
    classes = []
    for item in items:
        plain = {_plain(key): value for key, value in item.items()}
        name = next((plain[word] for word in NAMES if isinstance(plain.get(word), str)), None)
        if name is None:
            return None
        value = next((plain[word] for word in VALUES if re.fullmatch(NUMBER, str(plain.get(word)))), None)
        if 'shape' in plain:
            value = None  # an id in Supervisely's data base, not a value of its masks
        colour = next((colour_in(plain[word]) for word in COLOURS if word in plain), None)
        classes.append(ClassEntry(name, None if value is None else int(value), colour=colour))
    return classes
