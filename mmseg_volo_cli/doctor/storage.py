"""Check the weight caches, the data sets, and write access."""

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
    """Return the folder of torch's downloads, by torch's rules, without importing torch."""
    return Path(os.path.expanduser(os.environ.get('TORCH_HOME') or cache_home() / 'torch'))


def cache_home() -> Path:
    """Return the user's cache folder."""
    return Path(os.path.expanduser(os.environ.get('XDG_CACHE_HOME') or '~/.cache'))


def caches() -> Findings:
    """Report the size of the weight caches, unfinished downloads, damaged files, and variables that affect them."""
    hub = Path(os.path.expanduser(os.environ.get('HF_HOME') or cache_home() / 'huggingface')) / 'hub'
    hub = Path(os.path.expanduser(os.environ.get('HF_HUB_CACHE') or hub))
    for name, folder in (('weights', torch_home() / 'hub/checkpoints/mmseg_volo'), ('Hugging Face weights', hub)):
        files = [path for path in folder.rglob('*') if path.is_file() and not path.is_symlink()]
        size = sum(path.stat().st_size for path in files)
        yield Finding(OK, f'{name}: {len(files)} files, {size / GB:.1f} GB, in {folder}')
        if partial := [path for path in files if path.suffix == '.part']:
            yield Finding(NOTE, f'unfinished downloads there: {len(partial)}', 'fetch them again: the download resumes')
        for path in files:
            if path.suffix == '.safetensors' and not _whole(path):
                yield Finding(WRONG, f'{path} is truncated or damaged', 'remove it; it is fetched again when needed')
    for name in ('MMSEG_VOLO_OFFLINE', 'HF_HUB_OFFLINE'):
        if os.environ.get(name, '').lower() in ('1', 'on', 'yes', 'true'):
            yield Finding(NOTE, f'{name} is set: nothing is downloaded', f'unset {name} to fetch weights')
    if mirror := os.environ.get('MMSEG_VOLO_MIRROR', ''):
        if '://' in mirror:  # only the host: the path may be a secret
            yield Finding(OK, f'MMSEG_VOLO_MIRROR is at {urlsplit(mirror).hostname}')
        elif not Path(os.path.expanduser(mirror)).is_dir():
            remedy = 'set it to a folder or https://..., or unset it'
            yield Finding(WRONG, f'MMSEG_VOLO_MIRROR={mirror} is not a folder', remedy)


def _whole(path: Path) -> bool:
    """Return whether a .safetensors file is as long as its header says."""
    with path.open('rb') as file, contextlib.suppress(ValueError, TypeError, AttributeError):
        length = int.from_bytes(file.read(8), 'little')
        if length > path.stat().st_size:
            return False
        tensors = [entry for name, entry in json.loads(file.read(length)).items() if name != '__metadata__']
        end: int = max((tensor['data_offsets'][1] for tensor in tensors), default=0)
        return path.stat().st_size == 8 + length + end
    return False


def data() -> Findings:
    """List the data sets in ./data and report broken links."""
    root = Path('data')
    entries = sorted(p for p in root.iterdir() if p.is_dir() or p.is_symlink()) if root.is_dir() else []
    for path in entries:
        if not path.exists():
            remedy = 'recreate the link, or remove it'
            yield Finding(WRONG, f'{path} is a link to {os.readlink(path)}, which does not exist', remedy)
            continue
        decoded = ', with decoded copies' * (path / 'mmseg_volo_cache').is_dir()
        yield Finding(OK, f'{path}: {", ".join(sorted(p.name for p in path.iterdir())[:6]) or "empty"}{decoded}')
    if not entries:
        yield Finding(OK, f'no data sets in {root.absolute()}; --cfg-options data_root=PATH sets another folder')


def writing() -> Findings:
    """Check that results, weights and temporary files can be written, and the free space."""
    targets = {'results': Path('work_dirs'), 'weights': torch_home(), 'scratch': Path(tempfile.gettempdir())}
    advice = {'results': 'train with --work-dir FOLDER', 'weights': 'set TORCH_HOME', 'scratch': 'set TMPDIR'}
    for name, target in targets.items():
        folder = next(p for p in (target.absolute(), *target.absolute().parents) if p.is_dir())
        try:
            with tempfile.TemporaryFile(dir=folder) as file:
                file.write(b'0' * (1 << 20))
        except OSError as error:
            yield Finding(WRONG, f'{name}: {folder} cannot be written to ({error.strerror})', advice[name])
            continue
        free = shutil.disk_usage(folder).free
        low = free < LEAST_DISK
        message = f'{name}: {folder} can be written to, {free / GB:.1f} GB free'
        yield Finding(NOTE if low else OK, message, f'free some space, or {advice[name]}' if low else '')
