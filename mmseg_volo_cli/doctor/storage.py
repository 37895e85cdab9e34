"""Caches of weights, data sets, and where files are written."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

from mmseg_volo_cli.doctor.report import GB, NOTE, OK, WRONG, Finding, Findings

LEAST_DISK = 5 * GB


def torch_home() -> Path:
    """Where torch keeps what it fetches, as torch says, which may be absent."""
    return Path(os.path.expanduser(os.environ.get('TORCH_HOME') or cache_home() / 'torch'))


def cache_home() -> Path:
    return Path(os.path.expanduser(os.environ.get('XDG_CACHE_HOME') or '~/.cache'))


def caches() -> Findings:
    hub = Path(os.path.expanduser(os.environ.get('HF_HOME') or cache_home() / 'huggingface')) / 'hub'
    hub = Path(os.path.expanduser(os.environ.get('HF_HUB_CACHE') or hub))
    for name, place in (('weights', torch_home() / 'hub/checkpoints/mmseg_volo'), ("the hub's weights", hub)):
        files = [path for path in place.rglob('*') if path.is_file() and not path.is_symlink()]
        size = sum(path.stat().st_size for path in files)
        yield Finding(OK, f'{name}: {len(files)} files, {size / GB:.1f} GB, in {place}')
        if parts := [path for path in files if path.suffix == '.part']:
            yield Finding(NOTE, f'unfinished downloads there: {len(parts)}', 'they go on when they are asked for again')
        for path in files:
            if path.suffix == '.safetensors' and not _whole(path):
                yield Finding(WRONG, f'{path} is cut off or damaged', 'remove it; it is fetched anew when needed')
    for name in ('MMSEG_VOLO_OFFLINE', 'HF_HUB_OFFLINE'):
        if os.environ.get(name, '').lower() in ('1', 'on', 'yes', 'true'):
            yield Finding(NOTE, f'{name} is set: nothing is fetched', f'unset {name} to fetch weights')
    if mirror := os.environ.get('MMSEG_VOLO_MIRROR', ''):
        if '://' in mirror:  # its path may be a password
            yield Finding(OK, f'MMSEG_VOLO_MIRROR is at {urlsplit(mirror).hostname}')
        elif not Path(os.path.expanduser(mirror)).is_dir():
            yield Finding(
                WRONG, f'MMSEG_VOLO_MIRROR={mirror} is no folder', 'name a folder or https://..., or unset it'
            )


def _whole(path: Path) -> bool:
    """Whether a .safetensors file is as long as its head says."""
    with path.open('rb') as file, contextlib.suppress(ValueError, TypeError, AttributeError):
        length = int.from_bytes(file.read(8), 'little')
        if length > path.stat().st_size:
            return False
        parts = [part for name, part in json.loads(file.read(length)).items() if name != '__metadata__']
        return path.stat().st_size == 8 + length + max((part['data_offsets'][1] for part in parts), default=0)
    return False


def data() -> Findings:
    place = Path('data')
    entries = sorted(p for p in place.iterdir() if p.is_dir() or p.is_symlink()) if place.is_dir() else []
    for path in entries:
        if not path.exists():
            remedy = 'make the link anew, or remove it'
            yield Finding(WRONG, f'{path} is a link to {os.readlink(path)}, where nothing is', remedy)
            continue
        decoded = ', with decoded copies' * (path / 'mmseg_volo_cache').is_dir()
        yield Finding(OK, f'{path}: {", ".join(sorted(p.name for p in path.iterdir())[:6]) or "empty"}{decoded}')
    if not entries:
        yield Finding(OK, f'no data sets in {place.absolute()}; --cfg-options data_root=PATH names another place')


def writing() -> Findings:
    wanted = {'results': 'work_dirs', 'weights': torch_home(), 'scratch': tempfile.gettempdir()}
    advice = {'results': 'train with --work-dir FOLDER', 'weights': 'set TORCH_HOME', 'scratch': 'set TMPDIR'}
    for name, given in wanted.items():
        folder = next(p for p in (Path(given).absolute(), *Path(given).absolute().parents) if p.is_dir())
        try:
            with tempfile.TemporaryFile(dir=folder) as file:
                file.write(b'0' * (1 << 20))
        except OSError as error:
            yield Finding(WRONG, f'{name}: {folder} cannot be written to ({error.strerror})', advice[name])
            continue
        free = shutil.disk_usage(folder).free
        low = free < LEAST_DISK
        said = f'{name}: {folder} can be written to, {free / GB:.1f} GB free'
        yield Finding(NOTE if low else OK, said, f'make room, or {advice[name]}' if low else '')
