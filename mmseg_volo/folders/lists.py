"""Tables of images and masks, lists of splits, tables of classes."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from mmseg_volo.errors import UsageError
from mmseg_volo.texts import hidden, read_rows

SPLITS = dict(
    train=('train', 'training', 'trn', 'tr'), val=('val', 'valid', 'validation', 'dev'), test=('test', 'testing', 'ts')
)
COLUMNS = dict(
    image=('image', 'images', 'img', 'image_path', 'img_path', 'image_file', 'filename', 'file', 'sat_image_path'),
    mask=('mask', 'masks', 'label', 'mask_path', 'label_path', 'seg_map_path', 'annotation', 'segmentation', 'target'),
    split=('split', 'set', 'subset', 'partition'),
)
PLACES = ('', 'splits', 'lists', 'ImageSets', 'ImageSets/Segmentation')  # below the root, of lists
HEADING = ('class', 'code', 'colour')  # of a table of classes
Code = int | Sequence[int]  # in masks: a value, or (R, G, B)
Colour = tuple[int, int, int]  # RGB
Row = tuple[Path, Path | None, str | None]  # image, mask, split


def read_csv(root: Path) -> tuple[list[Row], Path] | None:
    """The rows of a table of images and masks: `root` itself, or the tables in this folder.

    Raises:
        UsageError: there are several, and not one for each split.
    """
    tables = [root] if root.suffix.lower() == '.csv' else sorted(root.glob('*.csv'))
    found = {path: rows for path in tables if (rows := _rows(path)) is not None}
    if not found:
        return None
    if len(found) == 1:
        ((path, rows),) = found.items()
        return rows, path
    splits = {path: split_of(path.stem) for path in found}
    if None in splits.values() or len({*splits.values()}) < len(found):
        raise UsageError(
            f'{root} holds several tables of images ({", ".join(p.name for p in found)}): give one as --data'
        )
    return [(image, mask, splits[path]) for path, rows in found.items() for image, mask, _ in rows], root


def _rows(path: Path) -> list[Row] | None:
    """None if it is another kind of table."""
    try:
        with path.open(newline='', encoding='utf-8-sig') as file:
            mark = max(',;\t', key=file.readline().count)
            file.seek(0)
            lines = [*csv.DictReader(file, delimiter=mark)]
    except (OSError, UnicodeDecodeError, csv.Error):
        return None
    names = {str(name).strip().lower(): name for name in (lines[0] if lines else {})}
    columns = {what: next((names[n] for n in known if n in names), None) for what, known in COLUMNS.items()}
    if columns['image'] is None or columns['mask'] is None:
        return None
    rows = []
    for line in lines:
        split = (line[columns['split']] or '').strip().lower() if columns['split'] else ''
        mask = (line[columns['mask']] or '').strip()
        if split and split_of(split) is None:
            raise UsageError(f'{path}: the split {split!r} is none of train, val and test')
        image = path.parent / (line[columns['image']] or '').strip()
        rows.append((image, path.parent / mask if mask else None, split_of(split)))
    return rows


def split_of(word: str) -> str | None:
    """'train', 'val' or 'test' for a word that means it."""
    return next((split for split, names in SPLITS.items() if word.lower() in names), None)


def read_lists(root: Path) -> dict[str, list[str]]:
    """Split -> lines that name its images, by the first place that has a list for training: one name in a line."""
    for place in PLACES:
        found = {}
        for split, words in SPLITS.items():
            for word in words:
                path = root / place / f'{word}.txt'
                if split not in found and path.is_file():
                    lines = path.read_text(encoding='utf-8').splitlines()
                    found[split] = [line.strip() for line in lines if line.strip()]
        if 'train' in found:
            return found
    return {}


def list_text(rows: Sequence[tuple[Path, Path | None]], root: Path) -> str:
    """A table of images and masks, their paths below `root` where they lie there."""

    def below(path: Path | None) -> str:
        if path is None:
            return ''
        return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()

    return _text([('image', 'mask'), *([below(path) for path in row] for row in rows)])


def class_text(
    classes: Sequence[str], codes: Sequence[Code], ignored: Sequence[Code], palette: Sequence[Colour] | None
) -> str:
    """A table of classes, see `FolderDataset`."""
    colours = palette or [()] * len(classes)
    rows = [(name, spelled(code), spelled(c)) for name, code, c in zip(classes, codes, colours, strict=True)]
    return _text([HEADING, *rows, *(('', spelled(code), '') for code in ignored)])


def spelled(code: Code) -> str:
    """A value or a colour as tables hold it: `7` or `128 0 64`."""
    return str(code) if isinstance(code, int) else ' '.join(map(str, code))


def _text(rows: Sequence[Sequence[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator='\n').writerows(rows)
    return text.getvalue()


def read_classes(path: Path) -> tuple[tuple[str, ...], list[Code], list[Code], list[Colour] | None]:
    """A table of classes: their names, their codes in masks, the codes of what is ignored, the classes' colours.

    Raises:
        FileNotFoundError, UsageError: there is no such table, or it is none.
    """
    if not path.is_file():
        raise FileNotFoundError(f'no table of classes at {path.absolute()}')
    heading, *cells = read_rows(path) or [[]]
    rows = [dict(zip(heading, row, strict=False)) for row in cells]
    if odd := next((row['class'] for row in rows if hidden(row.get('class', ''))), None):
        raise UsageError(f'{path}: names of classes are plain text, {odd!r} has characters that cannot be shown')
    try:
        numbers = [[int(part) for part in row['code'].split()] for row in rows]
        colours = [tuple(int(part) for part in row.get('colour', '').split()) for row in rows if row['class']]
        names = tuple(row['class'] for row in rows if row['class'])
    except (KeyError, AttributeError, ValueError) as error:
        raise UsageError(
            f'{path}: expected the columns {", ".join(HEADING)} with numbers as codes ({error})'
        ) from error
    if not names or any(len(n) not in (1, 3) for n in numbers) or any(len(c) not in (0, 3) for c in colours):
        raise UsageError(f'{path}: a class has a value or R G B as its code, and R G B or nothing as its colour')
    codes = [n[0] if len(n) == 1 else n for n in numbers]
    classes = [code for code, row in zip(codes, rows, strict=True) if row['class']]
    ignored = [code for code, row in zip(codes, rows, strict=True) if not row['class']]
    return names, classes, ignored, colours if all(colours) else None
