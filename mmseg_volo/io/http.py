"""One file over https: resumed, measured, checked. Where it comes from and goes to is `download.py`'s business.

Neither torch.hub nor huggingface_hub (2.4) goes on with what an interrupted run had received: hence our own.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import time
from http.client import HTTPException, HTTPMessage
from pathlib import Path
from typing import Any, NamedTuple
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from mmseg_volo.errors import UsageError
from mmseg_volo.utils.progress import ProgressBar

LOOPBACK = ('localhost', '127.0.0.1', '::1')
# torch.hub's way of naming files, NAME-SHA256.pth with eight digits or more; a date is none
NAMED_HASH = re.compile(r'-(?!(?:19|20)\d{6}\.)([0-9a-f]{8,64})\.(?:pth\.tar|pth|pt|safetensors)$')
PAGES = (b'<!doctype', b'<html', b'<?xml')
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EFBIG)
PASSING = (408, 429)  # HTTP errors below 500 that are worth another try
CHUNK = 1 << 20
TIMEOUT = 20.0  # seconds without a byte
MAX_STALLED_TRIES = 3  # in a row that bring nothing new
WAIT = 1.0  # seconds between them


class TransferError(Exception):
    """Why a file did not come, in half a sentence."""


class Version(NamedTuple):
    """What tells one version of a file on a server from another one."""

    validator: str | None  # its ETag, or Last-Modified
    size: int | None  # bytes
    sha256: str | None  # where the server says it, as huggingface.co does


def require_https(url: str) -> None:
    """Lets https through, and plain http on this machine.

    Raises:
        UsageError: it is another kind of address, or none.
    """
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:  # e.g. an open bracket
        raise UsageError(f'{url} is no address: expected https://HOST/PATH') from None
    if not host or not (parts.scheme == 'https' or (parts.scheme == 'http' and host in LOOPBACK)):
        raise UsageError(f'weights come from a local file, timm://NAME or https://HOST/PATH, got {url}')


def download(address: str, place: Path) -> None:
    """Fetches a file, with a progress bar on stderr, going on where an earlier try stopped.

    The file appears under its name when it is complete and has been checked: its size against the server's, its SHA-256
    where the server says it (huggingface.co) or its name ends in it, as torch.hub names files.

    Args:
        address: see `require_https`; redirects are held to the same.
        place: the file to be, in a folder that exists. What comes first is NAME.part and NAME.part.json beside it.

    Raises:
        TransferError: the network, the server or the file is at fault.
        OSError: it cannot be written.
    """
    part, best, fruitless = _Part(place), 0, 0
    while True:
        best = max(best, part.size())
        try:
            version = _receive(address, part)
            break
        except HTTPError as error:
            error.close()
            reason = f'HTTP {error.code} {error.reason}' + (', no such file there' if error.code == 404 else '')
            if error.code == 416:
                reason = 'the server has less of it than it had said'
                part.discard()
            elif error.code < 500 and error.code not in PASSING:
                raise TransferError(reason) from None
        except (OSError, HTTPException) as error:
            if getattr(error, 'errno', None) in DISK_ERRORS:
                raise
            cause = error.reason if isinstance(error, URLError) else error
            reason = ' '.join(str(cause).split()) or type(cause).__name__
        fruitless = 0 if part.size() > best else fruitless + 1
        if fruitless == MAX_STALLED_TRIES:
            kept = '; what has come is kept, and another try goes on from there' if part.size() else ''
            raise TransferError(reason + kept)
        time.sleep(WAIT)
    _finish(part, place, version)


class _Redirects(HTTPRedirectHandler):
    """Follows redirects to https only, and notes the hash that huggingface.co sends along with them."""

    sha256: str | None = None

    def redirect_request(
        self, req: Request, fp: Any, code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> Request | None:
        require_https(newurl)
        self.sha256 = _linked_hash(headers) or self.sha256
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _linked_hash(headers: HTTPMessage) -> str | None:
    value = (headers['X-Linked-Etag'] or '').strip('"')
    return value if re.fullmatch('[0-9a-f]{64}', value) else None  # that of a small file is no SHA-256


class _Part:
    """What has come so far of a file, and beside it the version that it is of.

    Bytes are written at their own offset, not appended: where a file system's locks do nothing, two processes then
    write the same bytes to the same place.
    """

    def __init__(self, place: Path):
        self.path = place.with_name(f'{place.name}.part')
        self.record = place.with_name(f'{place.name}.part.json')

    def size(self) -> int:
        return self.path.stat().st_size if self.path.is_file() else 0

    def version(self) -> Version | None:
        try:
            return Version(**json.loads(self.record.read_text()))
        except (FileNotFoundError, ValueError, TypeError):  # none yet, or cut short: begin anew
            return None

    def begin(self, version: Version) -> None:
        if version.validator is None or version != self.version():
            self.discard()
            self.record.write_text(json.dumps(version._asdict()))

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)
        self.record.unlink(missing_ok=True)


def _receive(address: str, part: _Part) -> Version:
    """One request, for the rest of the file, or for all of it when the server has another version now."""
    had, start = part.version(), part.size()
    if had and had.size == start:
        return had
    request = Request(address, headers={'User-Agent': 'mmseg_volo'})
    if had and had.validator and start:
        request.add_header('Range', f'bytes={start}-')
        request.add_header('If-Range', had.validator)
    redirects = _Redirects()
    with build_opener(redirects).open(request, timeout=TIMEOUT) as answer:
        if 'html' in (answer.headers['Content-Type'] or '').lower():
            raise TransferError('a web page came instead of a file, as from a firewall or a login')
        validator = answer.headers['ETag'] or answer.headers['Last-Modified']
        version = Version(validator, answer.length, redirects.sha256 or _linked_hash(answer.headers))
        if answer.status == 206:
            span = re.fullmatch(rf'bytes {start}-\d+/(\d+)', answer.headers['Content-Range'] or '')
            if not span or not had or (validator, int(span[1])) != (had.validator, had.size):
                part.discard()
                raise ConnectionError('the server went on with another version of the file')
            version = had
        else:
            start = 0
            part.begin(version)
        _write(answer, part, version, start)
    return version


def _write(answer: Any, part: _Part, version: Version, start: int) -> None:
    free = shutil.disk_usage(part.path.parent).free
    if version.size is not None and version.size - part.size() > free:
        raise OSError(errno.ENOSPC, f'{version.size / 1e6:.0f} MB do not fit, {free / 1e6:.0f} MB are free')
    name = part.path.name.removesuffix('.part')
    part.path.touch()
    with (
        open(part.path, 'r+b') as out,
        ProgressBar(
            desc=name, total=version.size, initial=start, unit='B', unit_scale=True, unit_divisor=1024, delay=0
        ) as bar,
    ):
        out.seek(start)
        while chunk := answer.read1(CHUNK):
            out.write(chunk)
            out.flush()  # for the run after this one, should this one be killed
            bar.update(len(chunk))
        end = out.tell()
    if version.size is not None and end != version.size:
        raise ConnectionError(f'the connection ended after {end} of {version.size} bytes')


def _finish(part: _Part, place: Path, version: Version) -> None:
    """A complete part is looked at and gets its name."""
    if version.size not in (None, part.size()):  # without working locks only
        raise TransferError('another process began it anew; try again')
    with open(part.path, 'rb') as file:
        begins = file.read(64).lstrip().lower()
        os.fsync(file.fileno())
    named = NAMED_HASH.search(place.name)
    promised = version.sha256 or (named[1] if named else '')
    found = sha256(part.path) if promised else ''
    if not found.startswith(promised):
        part.discard()
        raise TransferError(f'its SHA-256 should begin with {promised[:16]}, not {found[:16]}; nothing was kept')
    if not begins or begins.startswith(PAGES):
        part.discard()
        raise TransferError(f'{"a web page" if begins else "an empty file"} came instead of a checkpoint')
    os.replace(part.path, place)
    part.record.unlink(missing_ok=True)


def sha256(path: Path) -> str:
    """Of a file's content, 64 hexadecimal digits."""
    digest = hashlib.sha256()
    size, name = path.stat().st_size, path.name.removesuffix('.part')
    with (
        open(path, 'rb') as file,
        ProgressBar(
            desc=f'checksum of {name}', total=size, unit='B', unit_scale=True, unit_divisor=1024, leave=False
        ) as bar,
    ):
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            bar.update(len(chunk))
    return digest.hexdigest()
