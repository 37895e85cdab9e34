"""Replace passwords and tokens by `***` in whatever is written to files and logs."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

REDACTED = '***'
EMPTY = ('', 'None', 'True', 'False')
FOLDERS = ('PWD', 'OLDPWD')  # of the shell: folders, no passwords
LONG = 8  # least length of an environment variable's value that is searched for in text
WORDS = r'passw(?:or)?d|passphrase|pwd|secret|(?:api|access|private|secret)[_-]?key(?:[_-]?id)?|credentials?'
WORDS += r'|authori[sz]ation|(?<![a-z])auth|token'
SECRET_NAME = re.compile(rf'(?:{WORDS})$', re.IGNORECASE)
# names of networks' tokens
NOT_SECRETS = re.compile(
    r'(?:cls|class|pad|[ebs]os|unk|mask|sep|patch|dist|start|end|image|special)[_-]?token$', re.IGNORECASE
)
USER = re.compile(r'(://)[^\s/\'"]*:[^\s/\'"]*@|(https?://)[^\s/\'"]+@')
QUERY = re.compile(rf'([?&;][\w.-]*(?:{WORDS}|key|signature|sig)=)[^&\s\'"#]+', re.IGNORECASE)
BEARER = re.compile(r'\b(Bearer\s+)[\w.~+/=-]{8,}')
PAIR = re.compile(
    rf'(?P<key>[\w.-]*(?:{WORDS}))(?P<mark>\s*=\s*|[\'"]\s*:\s*|(?<=tion):\s*)'
    r'(?P<value>"[^"]*"|\'[^\']*\'|(?:Bearer|Basic|Token)\s+[^\s\'"]+|[^\s,;&)\]}\'"]+)',
    re.IGNORECASE,
)
KNOWN = re.compile(  # Hugging Face, GitHub, GitLab, OpenAI and the like, Slack, Amazon, Google, W&B, JSON Web Tokens
    r'\b(?:hf_(?=\w*[A-Z\d])[A-Za-z\d]{8,}|gh[pousr]_[A-Za-z\d]{16,}|github_pat_\w{16,}|glpat-[\w-]{16,}'
    r'|sk-(?=[\w-]*[A-Z\d])[\w-]{12,}|xox[abprs]-[\w-]{10,}|(?:AKIA|ASIA)[A-Z\d]{16}|AIza[\w-]{30,}|local-[\da-f]{40}'
    r'|eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]+)'
)


def is_secret(name: str) -> bool:
    """Whether a key, an option or a variable of this name holds a password, token or key."""
    return bool(SECRET_NAME.search(name)) and not NOT_SECRETS.search(name)


def redact(value: Any, name: str = '') -> Any:
    """Return plain data without secrets: values whose key names a secret, and text that looks like one.

    Args:
        value: nested mappings, lists and tuples.
        name: the key of the value.
    """
    if isinstance(value, Mapping):
        return {key: redact(item, name if is_secret(name) else str(key)) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        items = [redact(item, name) for item in value]
        return items if isinstance(value, list) else tuple(items)
    if isinstance(value, (str, bytes)):
        if value and is_secret(name):
            return REDACTED
        return redact_text(value) if isinstance(value, str) else value
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if number and is_secret(name) and not name.lower().endswith('token'):  # a token has letters
        return REDACTED
    return value


def redact_text(text: str) -> str:
    """Return text without passwords in URLs, known kinds of tokens, `NAME=VALUE` pairs with the name of a secret, and
    values of environment variables with such a name.
    """
    for name, value in os.environ.items():
        if len(value) >= LONG and value in text and is_secret(name) and name not in FOLDERS:
            text = text.replace(value, REDACTED)
    if '://' in text:
        text = USER.sub(lambda match: f'{match[1] or match[2]}{REDACTED}@', text)
    text = QUERY.sub(rf'\g<1>{REDACTED}', text)
    return PAIR.sub(_pair, KNOWN.sub(REDACTED, BEARER.sub(rf'\g<1>{REDACTED}', text)))


def _pair(match: re.Match[str]) -> str:
    value = match['value']
    quote = value[0] if value[0] in '\'"' else ''
    plain = value.strip(quote) in EMPTY or value.startswith(('(', '[', '{', 'dict('))
    if plain or not is_secret(match['key']) or (value.isdecimal() and match['key'].lower().endswith('token')):
        return match[0]
    return f'{match["key"]}{match["mark"]}{quote}{REDACTED}{quote}'


def redact_log_record(record: logging.LogRecord) -> bool:
    """Redact a log record; a filter for handlers and loggers."""
    record.msg, record.args = redact_text(record.getMessage()), ()
    return True


def redact_argv(words: Sequence[str]) -> list[str]:
    """Return the words of a command without secrets: `NAME=VALUE`, `--NAME VALUE`, and text that looks like one."""
    redacted: list[str] = []
    for before, word in zip(['', *words], words, strict=False):
        name, equals, value = word.partition('=')
        if equals and value not in EMPTY and any(map(is_secret, name.split('.'))):
            word = f'{name}={REDACTED}'
        elif before.startswith('--') and '=' not in before and is_secret(before) and not word.startswith('-'):
            word = REDACTED
        redacted.append(redact_text(word))
    return redacted
