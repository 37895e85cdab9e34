"""Weights from the network, kept under the whole of their address.

What lies at https://HOST/PATH is kept as HOST/PATH below `torch.hub.get_dir()/checkpoints/mmseg_volo`. This is the tree
that `wget -x` makes: a file fetched by hand is found there, and the tree of one machine is a mirror for another one.
Files of huggingface.co, which `timm://NAME` stands for, are also found where the hub's own cache has them.

Environment:
    MMSEG_VOLO_OFFLINE=1: nothing is fetched; what lies in no cache is an error. HF_HUB_OFFLINE=1: the same for
        huggingface.co alone.
    MMSEG_VOLO_MIRROR=PREFIX: PREFIX/https://HOST/PATH is fetched instead of https://HOST/PATH, the way of GitHub's
        proxies; or a folder that holds a tree as above, used where it is.
    HF_ENDPOINT=https://MIRROR: replaces https://huggingface.co.
    TORCH_HOME, HF_HOME: where the caches lie. HTTPS_PROXY, SSL_CERT_FILE: as everywhere.
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
    """The file of a URL: from a cache, or else downloaded, going on where an earlier try stopped.

    Any number of processes may ask at once: one downloads, the others wait for it.

    Args:
        url: https://HOST/PATH; plain http on this machine only.

    Raises:
        UsageError: it is no such URL, there is no such file, it cannot be had now, it came damaged, or it cannot be
            written. Says what to do; where a network blocks it, where to put the file by hand.
    """
    place = cached_path(url)
    if found := find_cached(url):
        return found
    address = _address(url)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f'{place}.lock'):
            if not place.is_file():  # another process may have brought it meanwhile
                download(address, place)
    except (TransferError, OSError) as error:
        if place.is_file():  # brought by another process, on a file system without locks
            return place
        if isinstance(error, TransferError):
            raise _by_hand(url, f'{error}' if address == url else f'at {address}: {error}') from None
        raise UsageError(
            f'{place} cannot be written ({error.strerror or error}): make room there, or set TORCH_HOME to a folder '
            f'that can be written'
        ) from None
    return place


def cached_path(url: str) -> Path:
    """Where a URL's file is kept, and where one that was fetched by hand belongs.

    Raises:
        UsageError: it is not the https:// address of a file.
    """
    return Path(torch.hub.get_dir()) / 'checkpoints' / 'mmseg_volo' / _tree(url)


def find_cached(url: str) -> Path | None:
    """The file of a URL where it lies already: in our cache, in a mirror that is a folder, in the hub's cache."""
    places = [cached_path(url)]
    mirror = _mirror()
    if mirror and '://' not in mirror:
        places.append(Path(os.path.expanduser(mirror)) / _tree(url))
    if hub := HUB.fullmatch(url):
        from huggingface_hub import try_to_load_from_cache

        with suppress(ValueError):  # the hub has no such names
            if isinstance(path := try_to_load_from_cache(**hub.groupdict()), str):
                places.append(Path(path))
    return next((p for p in places if p.is_file()), None)


def _tree(url: str) -> Path:
    """HOST/PATH. A query becomes a folder: the end of the name must go on to tell the format."""
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
    """What is opened for a URL.

    Raises:
        UsageError: nothing may be.
    """
    from huggingface_hub import constants

    mirror, hub = _mirror(), HUB.fullmatch(url)
    if mirror and '://' not in mirror:
        place = (Path(os.path.expanduser(mirror)) / _tree(url)).absolute()
        raise UsageError(f'{MIRROR}={mirror} lacks {url}, which is in no cache either: put it there as {place}')
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
