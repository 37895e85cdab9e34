"""Define the errors that commands report without a traceback, and print them."""

from __future__ import annotations

import contextlib
import os
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import suppress

from mmseg_volo.redaction import redact_text

LAUNCHED = 'MMSEG_VOLO_LAUNCHED'  # environment variable, set in the processes of `launch.py`
DIRECTIONS = frozenset('\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff')  # of writing
UNSEEN = ('Cc', 'Cs', 'Zl', 'Zp')  # Unicode's categories of control characters, surrogates and separators


class UsageError(ValueError):
    """The user's input cannot work; the message states what was given, what was expected and what to do."""


@contextlib.contextmanager
def as_errors() -> Iterator[None]:
    """Turn errors that are no `Exception`, as panics of Rust, into a `RuntimeError`; let requests to exit pass."""
    try:
        yield
    except (Exception, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        raise RuntimeError(f'{type(error).__name__}: {error}') from error


def message_of(error: Exception) -> str:
    """Return the message of an error; in one of a data worker, torch puts the traceback before the message."""
    text = str(error)
    if text.startswith('Caught ') and 'DataLoader' in text.partition('\n')[0]:
        return text.rstrip().rpartition('\n')[2].partition(': ')[2]
    return text


def describe(error: Exception) -> str:
    """Return the message of an error in one line; its class if it has no message, as failed assertions of libraries."""
    return ' '.join(message_of(error).split()) or type(error).__name__


def printable(text: str) -> str:
    """Escape text for a terminal, but keep lines and tabs: control characters, changes of the writing direction and
    lone surrogates, which names of files and errors may contain, become Python's escapes.
    """
    if text.isascii() and text.isprintable():
        return text
    unseen = (sign not in '\n\t' and (unicodedata.category(sign) in UNSEEN or sign in DIRECTIONS) for sign in text)
    return ''.join(repr(sign)[1:-1] if hidden else sign for sign, hidden in zip(text, unseen, strict=True))


def print_error(error: Exception) -> None:
    """Print one line on stderr; in a process of `launch.py`, pass it on instead, to be printed once for all."""
    if LAUNCHED in os.environ:
        from torch.distributed.elastic.multiprocessing.errors import get_error_handler

        get_error_handler().record_exception(UsageError(message_of(error)))
    else:
        print(f'error: {printable(redact_text(message_of(error)))}', file=sys.stderr)


def silence_output() -> None:
    """Discard further output, once its reader has gone, as behind `| head`: Python would report an error at exit."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError), open(os.devnull, 'wb') as nowhere:
            os.dup2(nowhere.fileno(), stream.fileno())


class BadFileError(UsageError):
    """A file cannot be used. `kind` is 'missing', 'unreadable', 'channels', 'size' or 'values'."""

    def __init__(self, kind: str, message: str):
        super().__init__(message)
        self.kind = kind
