"""Read text files, tables and paths in any common encoding, with the line ends and path syntax of any system."""

from __future__ import annotations

import codecs
import csv
import os
import re
from collections import Counter
from pathlib import Path, PureWindowsPath
from urllib.parse import unquote

from mmseg_volo.errors import UsageError, printable
from mmseg_volo.utils.files import refuse_special

BOMS = (
    (codecs.BOM_UTF8, 'utf-8'),
    (codecs.BOM_UTF32_LE, 'utf-32-le'),  # before UTF-16, whose mark is the start of this one
    (codecs.BOM_UTF32_BE, 'utf-32-be'),
    (codecs.BOM_UTF16_LE, 'utf-16-le'),
    (codecs.BOM_UTF16_BE, 'utf-16-be'),
)
SEPARATORS = '\t;|,'  # the rarest inside cells first
CONTROL = re.compile(r'[\x00-\x08\x0e-\x19\x1c-\x1f]')  # not in text: all but tab, line ends, Ctrl-Z and escape
PLAIN = 0.3  # least share of zeros among UTF-16's high bytes: text has some Latin letters, digits or separators


def read_text(path: Path) -> str:
    """Read a text file in any common encoding, with its lines ended by `\\n`.

    UTF-8, UTF-16 and UTF-32 are recognised by their byte order marks, UTF-16 without one by its zeros; other content
    is UTF-8, else Windows-1252, else Latin-1. East Asian encodings cannot be distinguished from these: names look
    wrong, but nothing is lost.

    Raises:
        UsageError: the file is binary, or a pipe or a device.
        OSError: it cannot be read.
    """
    refuse_special(path)
    content = Path(path).read_bytes()
    text = _decoded(content)
    if text is None:
        raise UsageError(f'{path} is not a text file: expected text, e.g. in UTF-8')
    return text.replace('\r\n', '\n').replace('\r', '\n').removesuffix('\x1a')


def _decoded(content: bytes) -> str | None:
    """Decode text; None if the content is binary."""
    for mark, encoding in BOMS:
        if content.startswith(mark):
            return _text(content[len(mark) :], encoding)
    if b'\0' in content:
        half = len(content) / 2
        shares = {'utf-16-be': content[::2].count(0) / half, 'utf-16-le': content[1::2].count(0) / half}
        encoding = max(shares, key=shares.__getitem__)
        return _text(content, encoding) if shares[encoding] >= PLAIN and min(shares.values()) == 0 else None
    text = _text(content, 'utf-8')
    if text is not None:
        return text
    text = _text(content, 'cp1252') or content.decode('latin-1')
    return None if CONTROL.search(text) else text


def _text(content: bytes, encoding: str) -> str | None:
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError:
        return None
    return None if '\0' in text else text


def read_lines(path: Path) -> list[str]:
    """Read the lines of a text file that are not blank, without the spaces and quotes around each.

    Raises:
        UsageError, OSError: see `read_text`.
    """
    lines = (unquoted(line) for line in read_text(path).split('\n'))
    return [line for line in lines if line]


def unquoted(text: str) -> str:
    """Strip text of the spaces and the pair of quotes around it."""
    text = text.strip()
    if len(text) > 1 and text[0] == text[-1] and text[0] in '\'"' and text[0] not in text[1:-1]:
        return text[1:-1].strip()
    return text


def read_rows(path: Path) -> list[list[str]]:
    """Read the rows of a table, its cells without the spaces around them; a table of one column has no separator.

    The separator is the tab, `;`, `|` or `,` that divides most rows into the same number of cells; quoted cells may
    contain it. Empty rows are left out.

    Raises:
        UsageError: the file is no table, or see `read_text`.
        OSError: it cannot be read.
    """
    lines = read_text(path).split('\n')
    try:
        if declared := re.fullmatch(r'"?sep=(.)"?', lines[0].strip(' ')):  # Excel's syntax
            return _rows(lines[1:], declared[1])
        tables = [_rows(lines, mark) for mark in SEPARATORS]
    except csv.Error as error:
        raise UsageError(f'{path} is not a table separated by one of {SEPARATORS!r}: {error}') from error
    return max(tables, key=_regularity)


def _rows(lines: list[str], mark: str) -> list[list[str]]:
    rows = csv.reader((f'{line}\n' for line in lines), delimiter=mark, skipinitialspace=True)
    cells = ([cell.strip() for cell in row] for row in rows)
    return [row for row in cells if any(row)]


def _regularity(rows: list[list[str]]) -> float:
    """Return the share of rows with the most frequent number of cells, 0 if that is one."""
    (cells, count), *_ = Counter(map(len, rows)).most_common(1) or [(1, 0)]
    return count / len(rows) if cells > 1 else 0.0


def local_path(text: str, folder: Path) -> Path:
    """Resolve a path in a list or table of `folder`, which may have been written on another machine.

    Returns `folder / text` if no such file exists. The path may lead out of the folder.

    Args:
        text: a path relative to the folder or to one above it, or absolute; may have `file://` or quotes around it,
            and Windows's `\\`. If an absolute path does not exist, its longest tail that exists below the folder is
            taken.
    """
    text = unquoted(text)
    if match := re.match(r'file:(?://(?:localhost)?(?=/))?', text, re.IGNORECASE):
        text = re.sub(r'^/(?=[A-Za-z]:)', '', unquote(text[match.end() :]))
    plain = text.replace('\\', '/')
    for path in (folder / text, folder / plain):
        if text and os.path.exists(path):
            return path
    names = PureWindowsPath(plain).parts  # splits any system's path; a drive, a share and the root are one name
    if PureWindowsPath(plain).drive or plain.startswith('/'):
        tails = [folder.joinpath(*names[start:]) for start in range(1, len(names)) if '..' not in names[start:]]
    else:
        tails = [
            path for above in folder.absolute().parents if (path := above / plain).is_relative_to(folder.absolute())
        ]
    return next((path for path in tails if os.path.exists(path)), folder / (plain or text))


def hidden(text: str) -> bool:
    """Whether text has line ends, tabs or characters that a terminal does not show, see `printable`."""
    return printable(text) != text or not {'\n', '\t'}.isdisjoint(text)
