"""Download one file over https, resume it, and verify its size and checksum; `download.py` chooses URL and path.

Neither torch.hub nor huggingface_hub (2.4) resumes what an interrupted run had received: hence this module.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import time
from http.client import HTTPException, HTTPMessage, HTTPResponse
from pathlib import Path
from typing import IO, NamedTuple
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from mmseg_volo.errors import UsageError
from mmseg_volo.utils.progress import ProgressBar

LOOPBACK = ('localhost', '127.0.0.1', '::1')
# names of torch.hub's files, NAME-SHA256.pth with eight digits or more; a date is no hash
NAMED_HASH = re.compile(r'-(?!(?:19|20)\d{6}\.)([0-9a-f]{8,64})\.(?:pth\.tar|pth|pt|safetensors)$')
PAGES = (b'<!doctype', b'<html', b'<?xml')
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EFBIG)
PASSING = (408, 429)  # temporary HTTP errors below 500
CHUNK = 1 << 20
TIMEOUT = 20.0  # seconds without a byte
MAX_STALLED_TRIES = 3  # consecutive attempts that bring nothing new
WAIT = 1.0  # seconds between attempts


class TransferError(Exception):
    """A download failed; the message is the reason, without the address."""


class Version(NamedTuple):
    """Identity of one version of a file on a server."""

    validator: str | None  # its ETag, or Last-Modified
    size: int | None  # bytes
    sha256: str | None  # if the server sends it, as huggingface.co does


def require_https(url: str) -> None:
    """Accept https, and plain http on this machine.

    Raises:
        UsageError: it is another kind of address, or none.
    """
    try:
        address = urlsplit(url)
        host = address.hostname
    except ValueError:  # e.g. an open bracket
        raise UsageError(f'{url} is not a URL: expected https://HOST/PATH') from None
    if not host or not (address.scheme == 'https' or (address.scheme == 'http' and host in LOOPBACK)):
        raise UsageError(f'weights come from a local file, timm://NAME or https://HOST/PATH, got {url}')


def download(address: str, path: Path) -> None:
    """Download a file with a progress bar on stderr, resuming an earlier attempt.

    The file appears under its name once it is complete and verified: its size against the server's, its SHA-256 if the
    server sends one (huggingface.co) or the name ends in one, as torch.hub names files.

    Args:
        address: see `require_https`, which applies to redirects as well.
        path: of the file, in a folder that exists. Until it is complete, NAME.part and NAME.part.json lie beside it.

    Raises:
        TransferError: the network, the server or the file is at fault.
        OSError: it cannot be written.
    """
    part, best, fruitless = _Part(path), 0, 0
    while True:
        best = max(best, part.size())
        try:
            version = _receive(address, part)
            break
        except HTTPError as error:
            error.close()
            reason = f'HTTP {error.code} {error.reason}' + (', no such file there' if error.code == 404 else '')
            if error.code == 416:
                reason = 'the file on the server is shorter than announced'
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
    _finish(part, path, version)


class _Redirects(HTTPRedirectHandler):
    """Follow redirects to https only, and keep the hash that huggingface.co sends with them."""

    sha256: str | None = None

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> Request | None:
        require_https(newurl)
        self.sha256 = _linked_hash(headers) or self.sha256
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _linked_hash(headers: HTTPMessage) -> str | None:
    value = (headers['X-Linked-Etag'] or '').strip('"')
    return value if re.fullmatch('[0-9a-f]{64}', value) else None  # that of a small file is no SHA-256


class _Part:
    """The bytes received so far, NAME.part, and beside them the version that they belong to.

    Bytes are written at their own offset, not appended: on a file system whose locks do nothing, two processes then
    write the same bytes to the same position.
    """

    def __init__(self, path: Path):
        self.path = path.with_name(f'{path.name}.part')
        self.record = path.with_name(f'{path.name}.part.json')

    def size(self) -> int:
        return self.path.stat().st_size if self.path.is_file() else 0

    def version(self) -> Version | None:
        try:
            return Version(**json.loads(self.record.read_text()))
        except (FileNotFoundError, ValueError, TypeError):  # none yet, or truncated: start over
            return None

    def start(self, version: Version) -> None:
        if version.validator is None or version != self.version():
            self.discard()
            self.record.write_text(json.dumps(version._asdict()))

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)
        self.record.unlink(missing_ok=True)


def _receive(address: str, part: _Part) -> Version:
    """Request the rest of the file, or all of it if the server has another version now."""
    previous, start = part.version(), part.size()
    if previous and previous.size == start:
        return previous
    request = Request(address, headers={'User-Agent': 'mmseg_volo'})
    if previous and previous.validator and start:
        request.add_header('Range', f'bytes={start}-')
        request.add_header('If-Range', previous.validator)
    redirects = _Redirects()
    with build_opener(redirects).open(request, timeout=TIMEOUT) as answer:
        if 'html' in (answer.headers['Content-Type'] or '').lower():
            raise TransferError('a web page came instead of a file, as from a firewall or a login')
        validator = answer.headers['ETag'] or answer.headers['Last-Modified']
        version = Version(validator, answer.length, redirects.sha256 or _linked_hash(answer.headers))
        if answer.status == 206:
            span = re.fullmatch(rf'bytes {start}-\d+/(\d+)', answer.headers['Content-Range'] or '')
            if not span or not previous or (validator, int(span[1])) != (previous.validator, previous.size):
                part.discard()
                raise ConnectionError('the server went on with another version of the file')
            version = previous
        else:
            start = 0
            part.start(version)
        _write(answer, part, version, start)
    return version


def _write(answer: HTTPResponse, part: _Part, version: Version, start: int) -> None:
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
            out.flush()  # keeps the bytes for the next run if this one is killed
            bar.update(len(chunk))
        end = out.tell()
    if version.size is not None and end != version.size:
        raise ConnectionError(f'the connection ended after {end} of {version.size} bytes')


def _finish(part: _Part, path: Path, version: Version) -> None:
    """Verify the complete part, and rename it to `path`."""
    if version.size not in (None, part.size()):  # happens only if locks do nothing
        raise TransferError('another process restarted the download; try again')
    with open(part.path, 'rb') as file:
        head = file.read(64).lstrip().lower()
        os.fsync(file.fileno())
    named = NAMED_HASH.search(path.name)
    expected = version.sha256 or (named[1] if named else '')
    actual = sha256(part.path) if expected else ''
    if not actual.startswith(expected):
        part.discard()
        raise TransferError(f'its SHA-256 should begin with {expected[:16]}, not {actual[:16]}; nothing was kept')
    if not head or head.startswith(PAGES):
        part.discard()
        raise TransferError(f'{"a web page" if head else "an empty file"} came instead of a checkpoint')
    os.replace(part.path, path)
    part.record.unlink(missing_ok=True)


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content, as 64 hexadecimal digits."""
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
