"""What a folder of results was made of, so that the same command goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mmseg_volo.errors import UsageError
from mmseg_volo.files import write_whole
from mmseg_volo.inference.inputs import Item
from mmseg_volo.inference.options import OUTPUTS
from mmseg_volo.segmentors.given import is_compiled

NAME = 'predictions.jsonl'


def fingerprint(model: nn.Module) -> str:
    """Tells a segmentor from another: its weights, how it looks at images, classes, colours, what of it is compiled."""
    told = [model.cfg.model, model.cfg.test_pipeline, model.test_cfg, model.dataset_meta]
    told += [name for name, module in model.named_modules() if is_compiled(module)]
    digest = hashlib.blake2b(repr(told).encode(), digest_size=16)
    for key, value in model.state_dict().items():
        digest.update(key.encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


class Record:
    """`OUT/predictions.jsonl`: a line of settings, then a line for each file, of which the last one counts.

    Args:
        out: folder of the results.
        settings: what else than the files the results depend on.
        anew: files to be done again even if they are done; None to do no more than is missing.

    Raises:
        UsageError: nothing is to be done anew, and the folder holds results of other settings, or of something else.
        OSError: the folder cannot be written to.
    """

    def __init__(self, out: Path, settings: Mapping[str, Any], anew: Iterable[Item] | None = None):
        self.out, self.path = out, out / NAME
        settings = json.loads(json.dumps(settings))
        lines = _lines(self.path)
        before = lines[0].get('settings', {}) if lines else None
        if anew is None:
            _same(out, before, settings)
        self.entries = {line['file']: line for line in lines[1:] if 'file' in line} if before == settings else {}
        for item in anew or ():
            self.entries.pop(str(item.name), None)
        out.mkdir(parents=True, exist_ok=True)
        kept = [dict(settings=settings), *self.entries.values()]
        write_whole(self.path, b''.join(json.dumps(line).encode() + b'\n' for line in kept))

    def is_done(self, item: Item, outputs: Iterable[str]) -> bool:
        """Whether all these outputs of the file as it is now were written, and are there."""
        entry = self.entries.get(str(item.name))
        if entry is None or entry.get('input') != _state(item.path):
            return False
        files = entry.get('outputs', {})
        return all(name in files and all((self.out / file).exists() for file in files[name]) for name in outputs)

    def add(self, item: Item, entry: Mapping[str, Any]) -> None:
        """Says that a file was predicted, or that it failed (`error`)."""
        line = dict(file=str(item.name), input=_state(item.path), **entry)
        self.entries[str(item.name)] = line
        with self.path.open('ab') as file:
            file.write(json.dumps(line).encode() + b'\n')
            file.flush()
            os.fsync(file.fileno())


def _same(out: Path, before: Mapping[str, Any] | None, now: Mapping[str, Any]) -> None:
    """Whether what is in the folder may be gone on with."""
    remedy = 'give another folder to --out, or --overwrite to do them anew'
    if before is None and any(any((out / name).glob('*')) for name in OUTPUTS):
        raise UsageError(f'{out} holds files, and no {NAME} says what they were made of: {remedy}')
    if before is None:
        return
    changed = [name for name in {**before, **now} if name in before and before[name] != now.get(name)]
    if changed:
        raise UsageError(f'{out} holds results of another {" and another ".join(changed)}: {remedy}')
    if unknown := [name for name in now if name not in before]:
        raise UsageError(f'{out} holds results of an older version, which did not note {", ".join(unknown)}: {remedy}')


def _state(path: Path) -> list[Any]:
    try:
        found = path.stat()
    except OSError:
        return []
    return [str(path.absolute()), found.st_size, found.st_mtime_ns]


def _lines(path: Path) -> list[dict[str, Any]]:
    """Those that are whole: the last one may be cut."""
    found = []
    if path.is_file():
        for line in path.read_text(encoding='utf-8', errors='replace').splitlines():
            try:
                found.append(json.loads(line))
            except ValueError:
                continue
    return [line for line in found if isinstance(line, dict)]
