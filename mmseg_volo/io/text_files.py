"""Text files and paths as users give them: any usual encoding, line ends, tables and paths of any system."""

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

BOMS = ((codecs.BOM_UTF8, 'utf-8'), (codecs.BOM_UTF32_LE, 'utf-32-le'), (codecs.BOM_UTF32_BE, 'utf-32-be'))
BOMS += ((codecs.BOM_UTF16_LE, 'utf-16-le'), (codecs.BOM_UTF16_BE, 'utf-16-be'))  # UTF-32's begins as UTF-16's does
SEPARATORS = '\t;|,'  # the rarest inside cells first
CONTROL = re.compile(r'[\x00-\x08\x0e-\x19\x1c-\x1f]')  # no text file has these: tab, line ends, Ctrl-Z, escape remain
PLAIN = 0.3  # share of UTF-16's high bytes that are 0 in what is Latin, digits and separators at least in part


def read_text(path: Path) -> str:
    """What a text file says, its lines ended by `\\n`, whichever usual encoding and line ends it has.

    UTF-8, and UTF-16 and UTF-32 by their byte order marks; UTF-16 without one by its zeros; else Windows-1252, or
    Latin-1 where that has no such character. East Asian encodings cannot be told from these: names look wrong, but
    nothing is lost.

    Raises:
        UsageError: the file is binary, or a pipe or a device.
        OSError: it cannot be read.
    """
    refuse_special(path)
    content = Path(path).read_bytes()
    text = _decoded(content)
    if text is None:
        raise UsageError(f'{path} is no text file; expected text, as UTF-8')
    return text.replace('\r\n', '\n').replace('\r', '\n').removesuffix('\x1a')


def _decoded(content: bytes) -> str | None:
    """None if it is no text."""
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
    """The lines of a text file that are not blank, without the spaces and the quotes around each.

    Raises:
        UsageError, OSError: see `read_text`.
    """
    lines = (unquoted(line) for line in read_text(path).split('\n'))
    return [line for line in lines if line]


def unquoted(text: str) -> str:
    """Text without the spaces and the pair of quotes around it."""
    text = text.strip()
    if len(text) > 1 and text[0] == text[-1] and text[0] in '\'"' and text[0] not in text[1:-1]:
        return text[1:-1].strip()
    return text


def read_rows(path: Path) -> list[list[str]]:
    """The rows of a table, its cells without the spaces around them; a table of one column has no separator.

    The separator is the tab, `;`, `|` or `,` that divides most rows into the same number of cells; quoted cells may
    hold it. Rows without any text are left out.

    Raises:
        UsageError: the file is no table, or see `read_text`.
        OSError: it cannot be read.
    """
    lines = read_text(path).split('\n')
    try:
        if given := re.fullmatch(r'"?sep=(.)"?', lines[0].strip(' ')):  # as Excel understands it
            return _rows(lines[1:], given[1])
        tables = [_rows(lines, mark) for mark in SEPARATORS]
    except csv.Error as error:
        raise UsageError(f'{path} is no table of cells with {SEPARATORS!r} between them: {error}') from error
    return max(tables, key=_regularity)


def _rows(lines: list[str], mark: str) -> list[list[str]]:
    rows = csv.reader((f'{line}\n' for line in lines), delimiter=mark, skipinitialspace=True)
    cells = ([cell.strip() for cell in row] for row in rows)
    return [row for row in cells if any(row)]


def _regularity(rows: list[list[str]]) -> float:
    """The share of rows with the most usual number of cells, where these are several."""
    (cells, count), *_ = Counter(map(len, rows)).most_common(1) or [(1, 0)]
    return count / len(rows) if cells > 1 else 0.0


def local_path(text: str, folder: Path) -> Path:
    """The file that a list or a table in `folder` means, which may have been written on another machine.

    `folder / text` where nothing of the kind exists. Nothing is said about where the file lies: a path may lead out of
    the folder.

    Args:
        text: a path relative to the folder or to one above it, or absolute; `file://` and quotes around it, `\\` as on
            Windows. Of an absolute path that does not exist the longest tail counts that exists below the folder.
    """
    text = unquoted(text)
    if match := re.match(r'file:(?://(?:localhost)?(?=/))?', text, re.IGNORECASE):
        text = re.sub(r'^/(?=[A-Za-z]:)', '', unquote(text[match.end() :]))
    plain = text.replace('\\', '/')
    for path in (folder / text, folder / plain):
        if text and os.path.exists(path):
            return path
    parts = PureWindowsPath(plain).parts  # of any system's path; a drive, a share and the root are one part
    if PureWindowsPath(plain).drive or plain.startswith('/'):
        tails = [folder.joinpath(*parts[start:]) for start in range(1, len(parts)) if '..' not in parts[start:]]
    else:
        tails = [
            path for above in folder.absolute().parents if (path := above / plain).is_relative_to(folder.absolute())
        ]
    return next((path for path in tails if os.path.exists(path)), folder / (plain or text))


def hidden(text: str) -> bool:
    """Whether text is not what a terminal shows of it, see `printable`, or has several lines or tabs."""
    return printable(text) != text or not {'\n', '\t'}.isdisjoint(text)
