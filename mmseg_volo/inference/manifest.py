"""What a folder of results was made of, so that the same command goes on where it stopped, in several processes too."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import RLock
from typing import Any
from uuid import uuid4

import torch
from torch import nn

from mmseg_volo.errors import UsageError
from mmseg_volo.inference.areas import table
from mmseg_volo.inference.name_collisions import Names, is_of, state_of
from mmseg_volo.inference.options import OUTPUTS
from mmseg_volo.inference.sources import AREAS, RECORD, Item, real_path
from mmseg_volo.inference.verify import confirmed, is_whole
from mmseg_volo.models.segmentors.unwrap import is_compiled
from mmseg_volo.utils.files import remove_scratch_files, write_whole
from mmseg_volo.utils.locks import Lock, acquire_shared, describe_holder, other_holders

MANIFEST_NAME = RECORD
LOCKS = '.predict'  # folder of locks
PROCESS = 'process'
REMEDY = 'give another folder to --out, or --overwrite to do them anew'


def fingerprint(model: nn.Module) -> str:
    """Tells a segmentor from another: its weights, how it looks at images, classes, colours, what of it is compiled."""
    told = [model.cfg.model, model.cfg.test_pipeline, model.test_cfg, model.dataset_meta]
    told += [name for name, module in model.named_modules() if is_compiled(module)]
    digest = hashlib.blake2b(repr(told).encode(), digest_size=16)
    for key, value in model.state_dict().items():
        digest.update(key.encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


class Manifest:
    """`OUT/predictions.jsonl`: a line of settings, then a line for each file, of which the last one counts.

    Any number of processes with the same settings may fill one folder: each file is done by the one that asks for it
    first. While they work, each says in a file of its own, which it has locked, at which inputs it is; those of a
    killed one are free again.

    Args:
        out: folder of the results.
        settings: what else than the files the results depend on.
        items: that are to be predicted.
        overwrite: do them again even if they are done, but for what a process does that is at it now.

    Raises:
        UsageError: nothing is to be done anew, and the folder holds results of other settings, of other inputs of the
            same names, or of something else; or another process fills it with other settings.
        OSError: the folder cannot be written to.
    """

    def __init__(self, out: Path, settings: Mapping[str, Any], items: Sequence[Item], overwrite: bool = False):
        self.out, self.path = out, out / MANIFEST_NAME
        self.entries: dict[str, dict[str, Any]] = {}
        self.refused: dict[Item, str] = {}  # inputs whose names another process has begun with, of another folder
        self._settings = json.loads(json.dumps(settings))
        self._mutex, self._gate = RLock(), Lock(out / LOCKS / 'record.lock', keep=True)
        self._slot: Lock | None = None
        self._head, self._end, self._cut = b'', 0, False  # first line, what of the file is known, whether a line is cut
        self._at: dict[str, str] = {}  # name -> input, of this process
        self._killed = False  # a process that was at it
        self.run, self._written = '', {}  # of all processes that are at it now: their mark, and name -> input
        try:
            with self._alone():
                self._begin(items, overwrite)
        except BaseException:
            self.close()
            raise

    def _begin(self, items: Sequence[Item], overwrite: bool) -> None:
        before = _line(self._head).get('settings') if self._head else None
        others = self._others()
        self._sweep()
        if not overwrite:
            _same(self.out, before, self._settings)
        elif others and before != self._settings:
            raise UsageError(
                f'{self.out} is being filled by {describe_holder(others[0])} with other settings: '
                f'wait until it ends, or give '
                f'another folder to --out'
            )
        if before != self._settings:
            self.entries = {}
        self.run = others[0].get('run') if others else uuid4().hex[:8]  # of all that are at it now
        self._names = Names(self.out, LOCKS)
        for entry in [*self.entries.values()]:
            self._note(entry)
        old = {name for name, entry in self.entries.items() if entry.get('run') != self.run}
        replaced = self._names.check(items, self.entries, {*old} if overwrite else set())
        for name in {*replaced, *(str(item.name) for item in items if overwrite)} & old:
            del self.entries[name]
        self._slot = acquire_shared(self.out / LOCKS, PROCESS, run=self.run, at={})
        self._rewrite(before)

    def _rewrite(self, before: Mapping[str, Any] | None) -> None:
        head = self._head
        if before != self._settings or not head:
            head = json.dumps(dict(settings=self._settings, begun=uuid4().hex)).encode() + b'\n'
        lines = b''.join(json.dumps(entry).encode() + b'\n' for entry in self.entries.values())
        if not self.path.is_file() or self.path.read_bytes() != head + lines:
            head = json.dumps({**_line(head), 'begun': uuid4().hex}).encode() + b'\n'  # others read all of it again
            write_whole(self.path, head + lines)
        self._head, self._end, self._cut = head, len(head + lines), False

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Inside, no other thread or process touches the record, and what others wrote is known."""
        with self._mutex:
            self._gate.take(wait=True)
            try:
                self._catch_up()
                yield
            finally:
                self._gate.release()

    def _catch_up(self) -> None:
        with suppress(FileNotFoundError), self.path.open('rb') as file:
            head = file.readline()
            if head != self._head:
                self._head, self._end = head, len(head)
            file.seek(self._end)
            content = file.read()
            whole = content.rfind(b'\n') + 1
            self._cut, self._end = whole < len(content), self._end + whole
            for line in map(_line, content[:whole].splitlines()):
                if 'file' in line:
                    self._note(line)

    def _note(self, line: dict[str, Any]) -> None:
        self.entries[line['file']] = line
        if line.get('run') == self.run and line.get('outputs'):
            self._written[self._names.key(line['file'])] = line['input'][0]

    def is_done(self, item: Item, outputs: Iterable[str]) -> bool:
        """Whether all these outputs of the file as it is now were written, and are there."""
        entry = self.entries.get(str(item.name))
        if entry is None or 'error' in entry or not is_of(entry, item.path):
            return False
        files = entry.get('outputs', {})
        sizes = entry.get('sizes', {})
        return all(name in files and all(is_whole(self.out / f, sizes.get(f)) for f in files[name]) for name in outputs)

    def claim(self, items: Iterable[Item], outputs: Sequence[str]) -> Iterator[Item]:
        """Those that are not done and that no other process is at, each when its turn comes; this process is then."""
        for item in items:
            with self._alone():
                free = not self.is_done(item, outputs) and self.failure(item) is None and self._is_free(item)
                if free:
                    self._at[self._names.key(item.name)] = real_path(item.path)
                    self._slot.tell(run=self.run, at=self._at)
            if free:
                yield item

    def _is_free(self, item: Item) -> bool:
        key, path = self._names.key(item.name), real_path(item.path)
        theirs = [other['at'][key] for other in self._others() if key in other.get('at', {})]
        for other in [*theirs, *filter(None, [self._written.get(key)])]:
            if other != path:
                self.refused[item] = f'{other} and {item.path} would be written to the same file: {REMEDY}'
                return False
        return not theirs and key not in self._at

    def _others(self) -> list[dict[str, Any]]:
        mine = 0 if self._slot is None else 1
        count = len([*(self.out / LOCKS).glob(f'.{PROCESS}-*.lock')]) - mine
        living = [*other_holders(self.out / LOCKS, PROCESS, self._slot)]
        self._killed |= count > len(living)
        return living

    def _sweep(self) -> None:
        """Removes what killed processes were writing."""
        if self._killed:
            for kind in (self.out / name for name in OUTPUTS):
                for folder, _, _ in os.walk(kind):
                    remove_scratch_files(Path(folder))
            remove_scratch_files(self.out)
        self._killed = False

    def failure(self, item: Item) -> str | None:
        """Why it was left out by a process that is at it now, if it was."""
        entry = self.entries.get(str(item.name), {})
        told = entry.get('run') == self.run and entry.get('input', [''])[:1] == [real_path(item.path)]
        return self.refused.get(item) or (entry.get('error') if told else None)

    def refresh(self) -> None:
        """Reads what other processes have written since."""
        with self._alone():
            pass

    def add(self, item: Item, entry: Mapping[str, Any]) -> None:
        """Says that a file was predicted, once the disk has confirmed its results, or that it failed (`error`)."""
        sizes = confirmed(self.out, [name for names in entry.get('outputs', {}).values() for name in names])
        with self._alone():
            state, before = state_of(item.path), self.entries.get(str(item.name), {})
            line = dict(file=str(item.name), input=state, run=self.run, **entry)
            if 'outputs' in entry:
                line['sizes'] = sizes
            if 'outputs' in entry and before.get('input') == state:  # what there is of other kinds stays
                line |= {key: {**before.get(key, {}), **line[key]} for key in ('outputs', 'sizes')}
            self._note(line)
            with self.path.open('ab') as file:
                file.write(b'\n' * self._cut + json.dumps(line).encode() + b'\n')
                file.flush()
                os.fsync(file.fileno())
                self._end = file.tell()
            self._at.pop(self._names.key(item.name), None)
            self._slot.tell(run=self.run, at=self._at)

    def write_areas(self, classes: Sequence[str]) -> None:
        """Makes `OUT/areas.csv` of all that the record holds now, of whatever process."""
        with self._alone():
            lines = [_line(line) for line in self.path.read_bytes().splitlines()]
            last = {line['file']: line for line in lines if 'file' in line}
            entries = sorted((entry for entry in last.values() if 'pixels' in entry), key=lambda entry: entry['file'])
            write_whole(self.out / AREAS, table(entries, classes))

    def close(self) -> None:
        """Leaves to others what this process is at."""
        with self._mutex, suppress(OSError):
            if self._slot is not None:
                self._slot.release()
            self._gate.take(wait=True)
            self._gate.keep = bool(self._others())
            self._sweep()
            self._gate.release()
            if not self._gate.keep:
                (self.out / LOCKS).rmdir()


def _same(out: Path, before: Mapping[str, Any] | None, now: Mapping[str, Any]) -> None:
    """Whether what is in the folder may be gone on with."""
    if before is None and any(any((out / name).glob('*')) for name in OUTPUTS):
        raise UsageError(f'{out} holds files, and no {MANIFEST_NAME} says what they were made of: {REMEDY}')
    if before is None:
        return
    changed = [name for name in {**before, **now} if name in before and before[name] != now.get(name)]
    if changed:
        raise UsageError(f'{out} holds results of another {" and another ".join(changed)}: {REMEDY}')
    if unknown := [name for name in now if name not in before]:
        raise UsageError(f'{out} holds results of an older version, which did not note {", ".join(unknown)}: {REMEDY}')


def _line(content: bytes) -> dict[str, Any]:
    """Empty if it is not whole."""
    try:
        found = json.loads(content)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
