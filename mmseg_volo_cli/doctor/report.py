"""What the checks of the doctor find, in lines."""

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
    """A line of the report."""

    state: str
    said: str
    remedy: str = ''


Findings = Iterator[Finding]


def words(error: BaseException) -> str:
    text = ' '.join(str(error).split())
    return f'{type(error).__name__}: {text[:400]}' if text else type(error).__name__


def harmless(text: str) -> str:
    """A text without passwords in addresses and without the values of secret variables of the environment."""
    for name, value in os.environ.items():
        if SECRET.search(name) and len(value) > 3:
            text = text.replace(value, '***')
    return re.sub(r'://[^/\s@]*@', '://***@', text)


def import_error(module: str) -> str:
    """Why a module cannot be imported, or nothing; what it prints and warns of meanwhile is dropped."""
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter('ignore')
            importlib.import_module(module)
    except (Exception, SystemExit) as error:  # libraries raise anything
        return words(error)
    return ''
