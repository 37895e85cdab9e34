"""The one error that tools show without a traceback."""

from __future__ import annotations

import contextlib
import os
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import suppress

from mmseg_volo.redaction import redact_text

LAUNCHED = 'MMSEG_VOLO_LAUNCHED'  # set in processes of `launch.py`
DIRECTIONS = frozenset('\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff')  # of writing
UNSEEN = ('Cc', 'Cs', 'Zl', 'Zp')  # Unicode's categories of what a terminal obeys, or cannot write


class UsageError(ValueError):
    """What the user gave cannot work; the message says what was given, what was expected and what to do."""


@contextlib.contextmanager
def as_errors() -> Iterator[None]:
    """Inside, whatever is raised is an `Exception`, panics of Rust too, but for what is to end the process."""
    try:
        yield
    except (Exception, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        raise RuntimeError(f'{type(error).__name__}: {error}') from error


def message_of(error: Exception) -> str:
    """What an error says; torch puts the traceback before what one of a data worker says in its last line."""
    text = str(error)
    if text.startswith('Caught ') and 'DataLoader' in text.partition('\n')[0]:
        return text.rstrip().rpartition('\n')[2].partition(': ')[2]
    return text


def describe(error: Exception) -> str:
    """What an error says in one line; its kind where it says nothing, as failed assertions of libraries do."""
    return ' '.join(message_of(error).split()) or type(error).__name__


def printable(text: str) -> str:
    """Text as a terminal shows it, lines and tabs kept: control characters, changes of the direction of writing and
    halves of surrogate pairs, which names of files and errors may hold, are written as Python writes them.
    """
    if text.isascii() and text.isprintable():
        return text
    unseen = (sign not in '\n\t' and (unicodedata.category(sign) in UNSEEN or sign in DIRECTIONS) for sign in text)
    return ''.join(repr(sign)[1:-1] if odd else sign for sign, odd in zip(text, unseen, strict=True))


def print_error(error: Exception) -> None:
    """One line on stderr; a process of `launch.py` leaves it to that one, which says it once for all processes."""
    if LAUNCHED in os.environ:
        from torch.distributed.elastic.multiprocessing.errors import get_error_handler

        get_error_handler().record_exception(UsageError(message_of(error)))
    else:
        print(f'error: {printable(redact_text(message_of(error)))}', file=sys.stderr)


def silence_output() -> None:
    """When nobody reads any more what is printed, as behind `| head`: Python would complain of it at exit."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError), open(os.devnull, 'wb') as nowhere:
            os.dup2(nowhere.fileno(), stream.fileno())


class BadFileError(UsageError):
    """A file that cannot be used. `kind` is 'missing', 'unreadable', 'channels', 'size' or 'values'."""

    def __init__(self, kind: str, message: str):
        super().__init__(message)
        self.kind = kind
