"""Read the lists, tables and JSON files of a data set: names of images, their masks and their splits."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from mmseg_volo.autotrain.name_words import FILLERS, LIST_FILLERS, Said, said_by, split_of
from mmseg_volo.errors import UsageError
from mmseg_volo.io.file_types import ARRAYS, IMAGES
from mmseg_volo.io.text_files import read_lines, read_rows, read_text, unquoted

COLUMNS: dict[str, tuple[str, ...]] = dict(
    image=('image', 'images', 'img', 'image_path', 'img_path', 'image_file', 'filename', 'file', 'sat_image_path'),
    mask=('mask', 'masks', 'label', 'mask_path', 'label_path', 'seg_map_path', 'annotation', 'segmentation', 'target'),
    split=('split', 'set', 'subset', 'partition'),
    maybe_split=(
        'dataset',
        'phase',
        'stage',
        'usage',
        'group',
        'type',
        'fold',
        'part',
    ),  # if all of its cells are splits
)
COLUMNS['image'] += ('image_name', 'img_name', 'file_name', 'image_filename', 'path', 'filepath', 'file_path')
COLUMNS['image'] += ('image_id', 'imageid', 'img_id')
MORE_IMAGE = ('id', 'name', 'stem', 'sample')  # which are common in other tables as well
COLUMNS['mask'] += ('mask_name', 'mask_file', 'mask_filename', 'label_file', 'label_name', 'gt', 'gt_path', 'seg')
COLUMNS['mask'] += ('ground_truth', 'groundtruth', 'annotation_path', 'seg_path', 'y')
FLAGS = dict(is_val='val', is_valid='val', is_validation='val', is_test='test')  # columns of true and false
TRUE = ('1', 'true', 'yes', 't', 'y')
FOLDS = ('fold', 'folds', 'kfold', 'cv_fold')
TABLES, LISTS, JSON = ('.csv', '.tsv'), ('.txt', '.lst', '.list'), ('.json',)
MOST = 64 << 20  # bytes of a JSON file, at most
PICTURE = IMAGES + ARRAYS
NAME = rf'"?(.+?(?:{"|".join(map(re.escape, PICTURE))}))"?'
TWO = re.compile(rf'{NAME}\s*[\s,;]\s*{NAME}(?:[\s,;].*)?', re.IGNORECASE)


@dataclass(frozen=True)
class Entry:
    """A line of a list."""

    image: str
    mask: str | None = None
    split: str | None = None  # a key of `SPLITS`
    where: str = ''  # e.g. 'row 3'


@dataclass(frozen=True)
class Listing:
    """A list, table or JSON file of images."""

    path: Path
    entries: Sequence[Entry]
    said: Said  # meaning of its name

    @property
    def has_masks(self) -> bool:
        """Whether it pairs images with masks."""
        return any(entry.mask for entry in self.entries)

    @property
    def has_splits(self) -> bool:
        """Whether its lines name splits."""
        return any(entry.split for entry in self.entries)


def read_listing(path: Path, given: bool = False) -> Listing | str | None:
    """Read a list of images; return a note if its splits are not recognised, None if the file is no list.

    Args:
        path: of a text file, a table or a JSON file; a list of one name per line must be named after a split.
        given: whether the user names this file, so that its name does not matter.

    Raises:
        UsageError: it is binary, or a table of images and masks has an unknown split.
    """
    said = said_by(path.stem, FILLERS + LIST_FILLERS)
    suffix = path.suffix.lower()
    if suffix not in TABLES + LISTS + JSON or (suffix in LISTS and not said.split and not given):
        return None
    try:
        entries = _of_table(read_rows(path), said) if suffix in TABLES else _of_text(path, said)
    except UnknownSplit as error:
        raise UsageError(f'{path}: {error}') from error
    except (OSError, RecursionError, json.JSONDecodeError) as error:
        if given:
            raise UsageError(f'{path} cannot be read: {error}') from error
        return None
    except UsageError as error:  # it is binary
        if given:
            raise
        return f'not used: {error}'
    if isinstance(entries, str):
        return f'{path} {entries}: no split is guessed from it; give lists (train.txt, val.txt) or a column split'
    return Listing(path, entries, said) if entries else None


class UnknownSplit(ValueError):
    """A table of images and masks has a split other than train, val and test."""


def _of_text(path: Path, said: Said) -> list[Entry] | str | None:
    if path.suffix.lower() in LISTS:
        return _of_lines(read_lines(path))
    return _of_json(json.loads(read_text(path)), said) if path.stat().st_size <= MOST else None


def _of_lines(lines: Sequence[str]) -> list[Entry]:
    """Read one name per line, or an image and its mask per line (separated by blank, tab, comma or semicolon), or all
    names in one line.
    """
    lines = [line for line in lines if not line.startswith('#')]
    if lines and lines[0].lower() in COLUMNS['image'] + MORE_IMAGE:  # a heading
        lines = lines[1:]
    both = [TWO.fullmatch(line) for line in lines]
    if all(both):
        return [Entry(match[1], match[2], None, f'line {n}') for n, match in enumerate(both, 1) if match]
    if len(lines) == 1 and len(names := re.split(r'[,;]', lines[0].strip('[](){} '))) > 2:
        lines = [name for word in names if (name := unquoted(word))]
    return [Entry(line, None, None, f'line {n}') for n, line in enumerate(lines, 1)]


def _of_table(rows: Sequence[Sequence[str]], said: Said) -> list[Entry] | str | None:
    if not rows:
        return None
    heads = [cell.lower().replace(' ', '_') for cell in rows[0]]
    body = [[*row, *[''] * (len(heads) - len(row))] for row in rows[1:]]
    if len(heads) > 1 and all(split_of(head) for head in heads if head):
        return [
            Entry(cell, None, split_of(head), f'row {number}')
            for number, row in enumerate(body, 2)
            for head, cell in zip(heads, row, strict=False)
            if cell and head
        ]
    if heads and PurePosixPath(heads[0]).suffix in PICTURE:  # no headings
        columns: dict[str, int | None] = dict(image=0, mask=1 if len(heads) > 1 else None, split=None)
        body, first = [[*row, *[''] * (len(heads) - len(row))] for row in rows], 1
    else:
        columns, first = {what: _column(heads, known) for what, known in COLUMNS.items()}, 2
    image, mask, split = (columns[what] for what in ('image', 'mask', 'split'))
    image = _column(heads, MORE_IMAGE) if image is None else image
    if image is None and len(heads) == 1 and said.split:
        return _of_lines([row[0] for row in rows])
    if image is None or not body:
        return None
    if mask is not None and not any(PurePosixPath(row[mask]).suffix.lower() in PICTURE for row in body):
        mask = None  # names of classes
    maybe = columns.get('maybe_split')
    if split is None and maybe is not None and all(split_of(row[maybe]) for row in body):
        split = maybe
    flags = {i: FLAGS[head] for i, head in enumerate(heads) if head in FLAGS}
    if mask is None and split is None and not flags and not said.split:
        folds = next((head for head in heads if head in FOLDS), None)
        return f'has a column {folds!r} and no column of train, val or test' if folds else None
    cells = [] if split is None else [row[split] for row in body if row[split] and not said_by(row[split]).split]
    if cells and mask is None:
        return f'has the split {cells[0]!r}, which is not train, val or test'
    if cells:
        raise UnknownSplit(f'the split {cells[0]!r} is not train, val or test')
    return [
        Entry(row[image], row[mask] or None if mask is not None else None, _split(row, split, flags), f'row {n}')
        for n, row in enumerate(body, first)
        if row[image]
    ]


def _column(heads: Sequence[str], known: Sequence[str]) -> int | None:
    return next((heads.index(name) for name in known if name in heads), None)


def _split(row: Sequence[str], column: int | None, flags: Mapping[int, str]) -> str | None:
    if column is None:
        held_out = next((split for i, split in flags.items() if row[i].lower() in TRUE), None)
        return held_out or ('train' if flags else None)
    return said_by(row[column]).split


def _of_json(content: Any, said: Said) -> list[Entry] | str | None:
    """Read `{"train": [...], "val": [...]}`, `{"a.jpg": "train"}`, or a list of images with their masks and splits."""
    if isinstance(content, list) and content and all(_by_split(fold) for fold in content):
        if len(content) == 1:
            return [*_by_split(content[0])]
        return f'holds {len(content)} folds, each with its own training and validation images'
    if isinstance(content, dict):
        if entries := _by_split(content):
            return entries
        if content and all(isinstance(v, str) and split_of(v) for v in content.values()):
            return [Entry(name, None, split_of(split), f'name {name!r}') for name, split in content.items()]
        return None
    if isinstance(content, list) and said.split and all(isinstance(item, str) for item in content):
        return [Entry(name, None, None, f'item {n}') for n, name in enumerate(content, 1)]
    if isinstance(content, list) and content and all(isinstance(item, dict) for item in content):
        items = [_of_item(item, None, f'item {n}') for n, item in enumerate(content, 1)]
        if None not in items and any(entry and (entry.mask or entry.split) for entry in items):
            return [entry for entry in items if entry]
    return None


def _by_split(content: Any) -> list[Entry]:
    entries = []
    for key, items in content.items() if isinstance(content, dict) else ():
        split = said_by(key, FILLERS + LIST_FILLERS).split if isinstance(key, str) else None
        if not split or not isinstance(items, list):
            continue
        for number, item in enumerate(items, 1):
            entry = _of_item(item, split, f'{key}, item {number}')
            if entry is None:
                return []
            entries.append(entry)
    return entries


def _of_item(item: Any, split: str | None, where: str) -> Entry | None:
    if isinstance(item, str):
        return Entry(item, None, split, where)
    if isinstance(item, list) and len(item) == 2 and all(isinstance(name, str) for name in item):
        return Entry(item[0], item[1], split, where)
    if not isinstance(item, dict):
        return None
    cells = {str(key).lower(): value for key, value in item.items() if isinstance(value, str)}
    image, mask, its_split = (
        next((cells[name] for name in known if name in cells), None)
        for known in (COLUMNS['image'] + MORE_IMAGE, COLUMNS['mask'], COLUMNS['split'])
    )
    if mask is not None and PurePosixPath(mask).suffix.lower() not in PICTURE:
        mask = None
    return Entry(image, mask, split or split_of(its_split or ''), where) if image else None
