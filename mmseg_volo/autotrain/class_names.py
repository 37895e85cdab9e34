"""Read the class names that a user gives, by `--classes` or in a file of the data."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from mmseg_volo.autotrain.class_files import DATA, ClassEntry, colour_in, names_in
from mmseg_volo.errors import UsageError
from mmseg_volo.io.text_files import hidden

# stems of files with class names, in lower case without punctuation, the most usual first
STEMS: tuple[str, ...] = ('classes', 'labels', 'classdict', 'labelcolors', 'labelcolours', 'labelmap')
STEMS += ('labelsmap', 'names', 'codes', 'classnames', 'labelnames', 'categories', 'classlist', 'classmap')
STEMS += ('id2label', 'label2id', 'colormap', 'palette', 'objectinfo150', 'obj', 'labelclassdict')
SUFFIXES = ('.txt', '.csv', '.tsv', '.names', *DATA)
OTHERS = ('data', 'dataset', 'meta', 'config')  # JSON and YAML that may hold names among other things
LABELME = '__ignore__'
FOLDERS = 64  # searched for such files, at most


def read_names(
    given: Sequence[str], root: Path, folders: Sequence[Path] = ()
) -> tuple[list[ClassEntry], str, list[str]]:
    """Return the classes that `--classes` or files of the data name, their source, and notes about other files.

    Args:
        given: names, `NAME=VALUE`, `NAME=R,G,B`, or one file.
        root: folder of the data, which is searched for such files.
        folders: of images and masks below it, which are searched as well.

    Raises:
        UsageError: a name or value occurs twice, a file names no class, or files disagree.
    """
    if len(given) == 1 and Path(given[0]).suffix.lower() in SUFFIXES:
        path = Path(given[0]).expanduser()
        if not path.is_file():
            raise UsageError(f'--classes {given[0]}: no such file')
        named = _checked(names_in(path), str(path))
        if not named:
            raise UsageError(f'{path} names no class that is recognised: write one class name per line')
        return named, str(path), []
    if given:
        if len(given) == 1 and re.search(r',\S', given[0]) and given[0].count('=') != 1:
            raise UsageError(f'--classes {given[0]}: separate names by spaces, {given[0].replace(",", " ")}')
        return _checked([_of_word(word) for word in given], '--classes'), '--classes', []
    return _from_files(root, folders)


def painted(named: Sequence[ClassEntry]) -> list[ClassEntry]:
    """Replace the values of classes by their colours, for masks of colours."""
    return [replace(item, code=item.colour, coloured=True) if item.colour is not None else item for item in named]


def _of_word(word: str) -> ClassEntry:
    name, equals, code = word.rpartition('=')
    if not equals or re.search(r'[^\W\d_]', code.strip()) and not code.strip().startswith('#'):
        return ClassEntry(word)
    if name and re.fullmatch(r'\d+', code):
        return ClassEntry(name, int(code))
    if name and (colour := colour_in(code)) is not None:
        return ClassEntry(name, colour, True)
    raise UsageError(f'--classes {word}: expected NAME, NAME=VALUE or NAME=R,G,B')


def _from_files(root: Path, folders: Sequence[Path]) -> tuple[list[ClassEntry], str, list[str]]:
    """Return the classes that files in some folders name together, their source, and notes."""
    named: list[ClassEntry] = []
    source: Path | None = None
    notes: list[str] = []
    for path in name_files(root, folders):
        where = path.relative_to(root).as_posix()
        try:
            classes = _checked(names_in(path), where)
        except OSError as error:
            raise UsageError(f'{path} cannot be read ({error.strerror})') from error
        if not classes:
            notes.append(f'{where} is not used: it names no class that is recognised')
        elif source is None:
            named, source = classes, path
        elif {item.name for item in classes} == {item.name for item in named}:
            named = _merged(named, classes, source.relative_to(root).as_posix(), where)
        elif path.name == source.name:
            raise UsageError(
                f'{source} and {path} name different classes: make them agree, or choose one with --classes FILE'
            )
        else:
            notes.append(f'{where} is not used: it names other classes than {source.relative_to(root).as_posix()}')
    return named, source.relative_to(root).as_posix() if source else '', notes


def name_files(root: Path, folders: Sequence[Path]) -> list[Path]:
    """List the files whose names suggest class names, those of the upper folders first."""
    below = {above for folder in folders for above in (folder, *folder.parents) if above.is_relative_to(root)}
    if len(below) > FOLDERS:  # one folder per image
        below = {folder for folder in below if len(folder.relative_to(root).parts) < 2}
    files = []
    for folder in {root, *below} if len(below) <= FOLDERS else {root}:
        for path in folder.iterdir() if folder.is_dir() else ():
            stem = re.sub(r'[^a-z0-9]', '', path.stem.lower())
            known = (*STEMS, *OTHERS) if path.suffix.lower() in DATA else STEMS
            if path.suffix.lower() in SUFFIXES and stem in known and path.is_file():
                files.append((len(folder.parts), known.index(stem), SUFFIXES.index(path.suffix.lower()), path))
    return [path for *_, path in sorted(files)]


def _merged(named: Sequence[ClassEntry], others: Sequence[ClassEntry], source: str, where: str) -> list[ClassEntry]:
    """Merge the values and colours that two files give to the same classes."""
    by_name = {item.name: item for item in others}
    merged: list[ClassEntry] = []
    for item in named:
        other = by_name[item.name]
        (value, colour), (second, paint) = _codes(item), _codes(other)
        if None not in (value, second) and value != second or None not in (colour, paint) and colour != paint:
            raise UsageError(
                f'{source} and {where} disagree on the value or colour of {item.name}: remove one of the two'
            )
        value, colour = second if value is None else value, paint if colour is None else colour
        alone = value is None and item.coloured and other.coloured
        merged.append(ClassEntry(item.name, colour if alone else value, alone, None if alone else colour))
    if all(item.code is None for item in (*named, *others)) and [item.name for item in named] != [
        item.name for item in others
    ]:
        raise UsageError(f'{source} and {where} name the same classes in different orders: remove one of the two')
    return merged


def _codes(item: ClassEntry) -> tuple[int | None, int | None]:
    """Return the value and the colour of a class."""
    return (None, item.code) if item.coloured else (item.code, item.colour)


def _checked(named: Sequence[ClassEntry], source: str) -> list[ClassEntry]:
    """Drop repeated entries, and classes with a negative value, which no mask holds.

    Raises:
        UsageError: a name is empty or has invisible characters, or a name or value occurs twice.
    """
    if named and named[0] == ClassEntry(LABELME):  # its value is -1, which masks of bytes hold as 255
        named = [*(ClassEntry(item.name, i) for i, item in enumerate(named[1:])), ClassEntry(LABELME, 255)]
    kept = [item for item in dict.fromkeys(named) if item.code is None or item.code >= 0]
    if len(kept) < len(named) and any(item.code is None for item in named):
        kept = [*named]  # the number of names counts
    for item in kept:
        if not item.name.strip() or hidden(item.name):
            what = f'{item.name!r} has characters that cannot be shown' if item.name.strip() else 'one is empty'
            raise UsageError(f'{source}: class names must be plain text, {what}')
    for what, values in (('class', [item.name for item in kept]), ('code', [item.code for item in kept])):
        double = next((value for value, n in Counter(values).items() if n > 1 and value is not None), None)
        if double is not None and what == 'class':
            raise UsageError(f'{source}: the class {double} is listed twice')
        if double is not None:
            names = [item.name for item in kept if item.code == double]
            raise UsageError(f'{source}: {names[0]} and {names[1]} have the same value or colour: give them one name')
    if kept and len({item.code is None for item in kept}) > 1:
        bare = next(item.name for item in kept if item.code is None)
        raise UsageError(f'{source}: {bare} has no value or colour, but other classes have one')
    return kept
