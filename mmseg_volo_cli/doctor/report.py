"""Define the findings of the doctor's checks, and remove secrets from their text."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import re
import warnings
from collections.abc import Iterator
from typing import NamedTuple

GB = 1e9  # bytes
SECRET = re.compile('token|key|secret|passw|credential|auth|cookie', re.I)
WRONG, NOTE, OK = 'WRONG', 'note', 'ok'


class Finding(NamedTuple):
    """One line of the report, and how to fix what it reports."""

    state: str  # WRONG, NOTE or OK
    message: str
    remedy: str = ''


Findings = Iterator[Finding]


def words(error: BaseException) -> str:
    """Return the type and text of an error in one line, at most 400 characters of text."""
    text = ' '.join(str(error).split())
    return f'{type(error).__name__}: {text[:400]}' if text else type(error).__name__


def harmless(text: str) -> str:
    """Mask passwords in addresses, and the values of environment variables that hold secrets."""
    for name, value in os.environ.items():
        if SECRET.search(name) and len(value) > 3:
            text = text.replace(value, '***')
    return re.sub(r'://[^/\s@]*@', '://***@', text)


def import_error(module: str) -> str:
    """Return why a module cannot be imported, or ''; its output and warnings are dropped."""
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter('ignore')
            importlib.import_module(module)
    except (Exception, SystemExit) as error:  # libraries raise anything
        return words(error)
    return ''
