"""Read and write the CSV tables of a recipe: the list of images and masks, and the table of classes."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from mmseg_volo.errors import UsageError
from mmseg_volo.io.text_files import hidden, read_rows

UNDERSTOOD = 'understood.txt'  # description of a recipe's data, beside its tables
HEADING = ('class', 'code', 'colour')  # columns of a table of classes
Code = int | Sequence[int]  # in masks: a value, or (R, G, B)
Colour = tuple[int, int, int]  # RGB


def list_text(rows: Sequence[tuple[Path, Path | None]], root: Path) -> str:
    """Return a table of images and masks as CSV text, with paths relative to `root` where they lie below it."""

    def below(path: Path | None) -> str:
        if path is None:
            return ''
        return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()

    return _text([('image', 'mask'), *([below(path) for path in row] for row in rows)])


def class_text(
    classes: Sequence[str], codes: Sequence[Code], ignored: Sequence[Code], palette: Sequence[Colour] | None
) -> str:
    """Return a table of classes as CSV text, see `FolderDataset`."""
    colours: Sequence[Sequence[int]] = palette or [()] * len(classes)
    rows = [(name, spelled(code), spelled(c)) for name, code, c in zip(classes, codes, colours, strict=True)]
    return _text([HEADING, *rows, *(('', spelled(code), '') for code in ignored)])


def spelled(code: Code) -> str:
    """Spell a value or a colour as in tables: `7` or `128 0 64`."""
    return str(code) if isinstance(code, int) else ' '.join(map(str, code))


def _text(rows: Sequence[Sequence[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator='\n').writerows(rows)
    return text.getvalue()


def read_classes(path: Path) -> tuple[tuple[str, ...], list[Code], list[Code], list[Colour] | None]:
    """Read a table of classes: their names, their codes in masks, the ignored codes, and the classes' colours.

    Raises:
        FileNotFoundError, UsageError: there is no such table, or its content is not as expected.
    """
    if not path.is_file():
        raise FileNotFoundError(f'no table of classes at {path.absolute()}')
    heading, *cells = read_rows(path) or [[]]
    rows = [dict(zip(heading, row, strict=False)) for row in cells]
    if odd := next((row['class'] for row in rows if hidden(row.get('class', ''))), None):
        raise UsageError(f'{path}: the name of class {odd!r} has characters that cannot be shown: use plain text')
    try:
        numbers = [[int(number) for number in row['code'].split()] for row in rows]
        colours = [tuple(int(number) for number in row.get('colour', '').split()) for row in rows if row['class']]
        names = tuple(row['class'] for row in rows if row['class'])
    except (KeyError, AttributeError, ValueError) as error:
        raise UsageError(
            f'{path}: expected the columns {", ".join(HEADING)} with numbers as codes ({error})'
        ) from error
    if not names or any(len(n) not in (1, 3) for n in numbers) or any(len(c) not in (0, 3) for c in colours):
        raise UsageError(
            f'{path}: expected a value or R G B as the code of each class, and R G B or nothing as its colour'
        )
    codes: list[Code] = [n[0] if len(n) == 1 else n for n in numbers]
    classes = [code for code, row in zip(codes, rows, strict=True) if row['class']]
    ignored = [code for code, row in zip(codes, rows, strict=True) if not row['class']]
    palette = [(colour[0], colour[1], colour[2]) for colour in colours] if all(colours) else None
    return names, classes, ignored, palette
