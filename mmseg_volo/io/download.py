"""Download weights, and cache them under their full address.

The file at https://HOST/PATH is kept as HOST/PATH below `torch.hub.get_dir()/checkpoints/mmseg_volo`. `wget -x` creates
the same tree: a file downloaded by hand is found there, and the tree of one machine can mirror for another. Files of
huggingface.co, which `timm://NAME` refers to, are also found in the hub's own cache.

Environment:
    MMSEG_VOLO_OFFLINE=1: never download; a file that is in no cache is an error. HF_HUB_OFFLINE=1: the same for
        huggingface.co alone.
    MMSEG_VOLO_MIRROR=PREFIX: download PREFIX/https://HOST/PATH instead of https://HOST/PATH, as GitHub's proxies
        expect; or a folder that holds such a tree, whose files are used in place.
    HF_ENDPOINT=https://MIRROR: replaces https://huggingface.co.
    TORCH_HOME, HF_HOME: locations of the caches. HTTPS_PROXY, SSL_CERT_FILE: their usual meaning.
"""

from __future__ import annotations

import hashlib
import os
import re
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import torch
from filelock import FileLock

from mmseg_volo.errors import UsageError
from mmseg_volo.io.http import TransferError, download, require_https

OFFLINE, MIRROR = 'MMSEG_VOLO_OFFLINE', 'MMSEG_VOLO_MIRROR'
HUB_HOST = 'https://huggingface.co'
HUB = re.compile(
    re.escape(HUB_HOST) + r'/(?P<repo_id>[\w.-]+/[\w.-]+)/resolve/(?P<revision>[^/]+)/(?P<filename>[^?]+)(\?.*)?'
)


def fetch(url: str) -> Path:
    """Return the file of a URL from a cache, or download it, resuming an earlier attempt.

    Any number of processes may call this at once: one downloads, the others wait for it.

    Args:
        url: https://HOST/PATH; plain http on this machine only.

    Raises:
        UsageError: the URL is malformed, or its file does not exist, cannot be downloaded now, arrived damaged or
            cannot be written. The message states what to do, e.g. where to put a file downloaded by hand.
    """
    path = cached_path(url)
    if cached := find_cached(url):
        return cached
    address = _address(url)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f'{path}.lock'):
            if not path.is_file():  # another process may have downloaded it meanwhile
                download(address, path)
    except (TransferError, OSError) as error:
        if path.is_file():  # downloaded by another process, on a file system without locks
            return path
        if isinstance(error, TransferError):
            raise _by_hand(url, f'{error}' if address == url else f'at {address}: {error}') from None
        raise UsageError(
            f'{path} cannot be written ({error.strerror or error}): make room there, or set TORCH_HOME to a folder '
            f'that can be written'
        ) from None
    return path


def cached_path(url: str) -> Path:
    """Return the path of a URL's file in the cache, where a file downloaded by hand belongs as well.

    Raises:
        UsageError: it is not the https:// address of a file.
    """
    return Path(torch.hub.get_dir()) / 'checkpoints' / 'mmseg_volo' / _tree(url)


def find_cached(url: str) -> Path | None:
    """Search for the file of a URL in this package's cache, in a mirror that is a folder, and in the hub's cache."""
    paths = [cached_path(url)]
    mirror = _mirror()
    if mirror and '://' not in mirror:
        paths.append(Path(os.path.expanduser(mirror)) / _tree(url))
    if hub := HUB.fullmatch(url):
        from huggingface_hub import try_to_load_from_cache

        with suppress(ValueError):  # the hub has no such names
            if isinstance(path := try_to_load_from_cache(**hub.groupdict()), str):
                paths.append(Path(path))
    return next((path for path in paths if path.is_file()), None)


def _tree(url: str) -> Path:
    """Return HOST/PATH of a URL. A query becomes a folder, so that the name keeps the suffix of its format."""
    require_https(url)
    parts = urlsplit(url)
    names = parts.path.split('/')[1:]
    if not names or {'', '.', '..'} & {*names} or '@' in parts.netloc:
        raise UsageError(f'{url} is not the address of a file: expected https://HOST/PATH/NAME')
    if parts.query:
        names.insert(-1, hashlib.sha256(parts.query.encode()).hexdigest()[:16])
    return Path(parts.netloc.lower(), *names)


def _mirror() -> str:
    return os.environ.get(MIRROR, '').rstrip('/')


def _address(url: str) -> str:
    """Return the address to download a URL from: its mirror's, if one is set.

    Raises:
        UsageError: the environment forbids the download, or the mirror is a folder that lacks the file.
    """
    from huggingface_hub import constants

    mirror, hub = _mirror(), HUB.fullmatch(url)
    if mirror and '://' not in mirror:
        path = (Path(os.path.expanduser(mirror)) / _tree(url)).absolute()
        raise UsageError(f'{MIRROR}={mirror} lacks {url}, which is in no cache either: put it there as {path}')
    for name, on in ((OFFLINE, _switched_on(OFFLINE)), ('HF_HUB_OFFLINE', hub and constants.HF_HUB_OFFLINE)):
        if on:
            raise _by_hand(url, f'{name} is set, and it is in no cache')
    if mirror:
        address = f'{mirror}/{url}'
    else:
        address = url.replace(HUB_HOST, constants.ENDPOINT, 1) if hub else url
    require_https(address)
    return address


def _switched_on(name: str) -> bool:
    return os.environ.get(name, '').lower() in ('1', 'on', 'yes', 'true')


def _by_hand(url: str, reason: str) -> UsageError:
    return UsageError(
        f'{url} could not be fetched ({reason}): fetch it by hand and save it as {cached_path(url)}, '
        f'or name a mirror with {MIRROR}'
    )
