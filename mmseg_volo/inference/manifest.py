"""Record what a folder of results was made from, so that the same command continues, in several processes too."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import RLock
from typing import Any, cast
from uuid import uuid4

import torch
from mmseg.models import BaseSegmentor

from mmseg_volo.errors import UsageError
from mmseg_volo.inference.areas import table
from mmseg_volo.inference.name_collisions import Entry, Names, is_of, state_of
from mmseg_volo.inference.options import OUTPUTS
from mmseg_volo.inference.sources import AREAS, RECORD, Item, real_path
from mmseg_volo.inference.verify import confirmed, is_whole
from mmseg_volo.models.segmentors.unwrap import is_compiled
from mmseg_volo.utils.files import remove_scratch_files, write_whole
from mmseg_volo.utils.locks import Lock, acquire_shared, describe_holder, other_holders

MANIFEST_NAME = RECORD
LOCKS = '.predict'  # folder of lock files
PROCESS = 'process'
REMEDY = 'give another folder to --out, or --overwrite to replace them'


def fingerprint(model: BaseSegmentor) -> str:
    """Return a hash of a segmentor's config, test pipeline, classes, colours, compiled modules and weights."""
    description = [model.cfg.model, model.cfg.test_pipeline, model.test_cfg, model.dataset_meta]
    description += [name for name, module in model.named_modules() if is_compiled(module)]
    digest = hashlib.blake2b(repr(description).encode(), digest_size=16)
    for key, value in model.state_dict().items():
        digest.update(key.encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


class Manifest:
    """Manage `OUT/predictions.jsonl`: a line of settings, then lines of files; the last line of each file counts.

    Any number of processes with the same settings may fill one folder: the first one to claim a file predicts it. Each
    process lists the inputs that it is predicting in a lock file of its own; those of a killed one become free again.

    Args:
        out: folder of the results.
        settings: what the results depend on, apart from the inputs.
        items: files to predict.
        overwrite: predict them even if they are done, except those that a running process has done.

    Raises:
        UsageError: `overwrite` is off, and the folder holds results of other settings, of other inputs of the same
            names, or other files; or another process is filling it with other settings.
        OSError: the folder cannot be written to.
    """

    def __init__(self, out: Path, settings: Mapping[str, Any], items: Sequence[Item], overwrite: bool = False):
        self.out, self.path = out, out / MANIFEST_NAME
        self.entries: dict[str, Entry] = {}
        self.refused: dict[Item, str] = {}  # inputs whose names another process uses for inputs of another folder
        self._settings = json.loads(json.dumps(settings))
        self._mutex, self._gate = RLock(), Lock(out / LOCKS / 'record.lock', keep=True)
        self._slot: Lock | None = None
        self._head, self._end = b'', 0  # the first line, and how many bytes of the file were read
        self._cut = False  # whether its last line is incomplete
        self._claimed: dict[str, str] = {}  # key -> input, of this process
        self._killed = False  # whether a process was killed while it filled the folder
        self.run: str | None = ''  # mark of all processes that are filling the folder now
        self._written: dict[str, str] = {}  # key -> input, of these processes
        try:
            with self._locked():
                self._start(items, overwrite)
        except BaseException:
            self.close()
            raise

    def _start(self, items: Sequence[Item], overwrite: bool) -> None:
        before = _parse(self._head).get('settings') if self._head else None
        others = self._others()
        self._sweep()
        if not overwrite:
            _refuse_other_settings(self.out, before, self._settings)
        elif others and before != self._settings:
            raise UsageError(
                f'{self.out} is being filled by {describe_holder(others[0])} with other settings: wait until it ends, '
                f'or give another folder to --out'
            )
        if before != self._settings:
            self.entries = {}
        self.run = others[0].get('run') if others else uuid4().hex[:8]
        self._names = Names(self.out, LOCKS)
        for entry in [*self.entries.values()]:
            self._add_line(entry)
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
            head = json.dumps({**_parse(head), 'begun': uuid4().hex}).encode() + b'\n'  # makes others read it again
            write_whole(self.path, head + lines)
        self._head, self._end, self._cut = head, len(head + lines), False

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep other threads and processes from the file inside the block; first read what they wrote."""
        with self._mutex:
            self._gate.take(wait=True)
            try:
                self._catch_up()
                yield
            finally:
                self._gate.release()

    def _catch_up(self) -> None:
        """Read the lines that other processes have added."""
        with suppress(FileNotFoundError), self.path.open('rb') as file:
            head = file.readline()
            if head != self._head:
                self._head, self._end = head, len(head)
            file.seek(self._end)
            content = file.read()
            whole = content.rfind(b'\n') + 1
            self._cut, self._end = whole < len(content), self._end + whole
            for line in map(_parse, content[:whole].splitlines()):
                if 'file' in line:
                    self._add_line(cast(Entry, line))

    def _add_line(self, entry: Entry) -> None:
        self.entries[entry['file']] = entry
        if entry.get('run') == self.run and entry.get('outputs'):
            self._written[self._names.key(entry['file'])] = entry['input'][0]

    def is_done(self, item: Item, outputs: Iterable[str]) -> bool:
        """Return whether these outputs exist, complete and for the current state of the file."""
        entry = self.entries.get(str(item.name))
        if entry is None or 'error' in entry or not is_of(entry, item.path):
            return False
        files = entry.get('outputs', {})
        sizes = entry.get('sizes', {})
        return all(name in files and all(is_whole(self.out / f, sizes.get(f)) for f in files[name]) for name in outputs)

    def claim(self, items: Iterable[Item], outputs: Sequence[str]) -> Iterator[Item]:
        """Yield the items that are not done and not claimed by another process, claiming each just before."""
        for item in items:
            with self._locked():
                free = not self.is_done(item, outputs) and self.failure(item) is None and self._is_free(item)
                if free:
                    self._claimed[self._names.key(item.name)] = real_path(item.path)
                    self._publish_claims()
            if free:
                yield item

    def _publish_claims(self) -> None:
        assert self._slot is not None  # from `_start` until `close`
        self._slot.tell(run=self.run, at=self._claimed)

    def _is_free(self, item: Item) -> bool:
        key, path = self._names.key(item.name), real_path(item.path)
        theirs = [other['at'][key] for other in self._others() if key in other.get('at', {})]
        for other in [*theirs, *filter(None, [self._written.get(key)])]:
            if other != path:
                self.refused[item] = f'{other} and {item.path} would be written to the same file: {REMEDY}'
                return False
        return not theirs and key not in self._claimed

    def _others(self) -> list[dict[str, Any]]:
        """Return what the other running processes have published."""
        mine = 0 if self._slot is None else 1
        count = len([*(self.out / LOCKS).glob(f'.{PROCESS}-*.lock')]) - mine
        living = [*other_holders(self.out / LOCKS, PROCESS, self._slot)]
        self._killed |= count > len(living)
        return living

    def _sweep(self) -> None:
        """Remove the unfinished files of killed processes."""
        if self._killed:
            for kind in (self.out / name for name in OUTPUTS):
                for folder, _, _ in os.walk(kind):
                    remove_scratch_files(Path(folder))
            remove_scratch_files(self.out)
        self._killed = False

    def failure(self, item: Item) -> str | None:
        """Return why a running process skipped a file, or None if none did."""
        entry = self.entries.get(str(item.name), Entry())
        current = entry.get('run') == self.run and entry.get('input', [''])[:1] == [real_path(item.path)]
        return self.refused.get(item) or (entry.get('error') if current else None)

    def refresh(self) -> None:
        """Read what other processes have written in the meantime."""
        with self._locked():
            pass

    def add(self, item: Item, entry: Mapping[str, Any]) -> None:
        """Add a file that was predicted, after flushing its results to disk, or that failed (`error`)."""
        sizes = confirmed(self.out, [name for names in entry.get('outputs', {}).values() for name in names])
        with self._locked():
            state, before = state_of(item.path), self.entries.get(str(item.name), Entry())
            line: dict[str, Any] = dict(file=str(item.name), input=state, run=self.run, **entry)
            if 'outputs' in entry:
                line['sizes'] = sizes
            if 'outputs' in entry and before.get('input') == state:  # keeps the other kinds
                line['outputs'] = {**before.get('outputs', {}), **line['outputs']}
                line['sizes'] = {**before.get('sizes', {}), **sizes}
            self._add_line(cast(Entry, line))
            with self.path.open('ab') as file:
                file.write(b'\n' * self._cut + json.dumps(line).encode() + b'\n')
                file.flush()
                os.fsync(file.fileno())
                self._end = file.tell()
            self._claimed.pop(self._names.key(item.name), None)
            self._publish_claims()

    def write_areas(self, classes: Sequence[str]) -> None:
        """Write `OUT/areas.csv` of all files in the manifest, from whatever process."""
        with self._locked():
            lines = [_parse(line) for line in self.path.read_bytes().splitlines()]
            last = {line['file']: line for line in lines if 'file' in line}
            entries = sorted((entry for entry in last.values() if 'pixels' in entry), key=lambda entry: entry['file'])
            write_whole(self.out / AREAS, table(entries, classes))

    def close(self) -> None:
        """Release the claims of this process."""
        with self._mutex, suppress(OSError):
            if self._slot is not None:
                self._slot.release()
            self._gate.take(wait=True)
            self._gate.keep = bool(self._others())
            self._sweep()
            self._gate.release()
            if not self._gate.keep:
                (self.out / LOCKS).rmdir()


def _refuse_other_settings(out: Path, before: Mapping[str, Any] | None, now: Mapping[str, Any]) -> None:
    """Raise a UsageError if the results in a folder were made with other or unknown settings."""
    if before is None and any(any((out / name).glob('*')) for name in OUTPUTS):
        raise UsageError(f'{out} holds files, but no {MANIFEST_NAME} that records how they were made: {REMEDY}')
    if before is None:
        return
    changed = [name for name in {**before, **now} if name in before and before[name] != now.get(name)]
    if changed:
        raise UsageError(f'{out} holds results made with other settings ({", ".join(changed)}): {REMEDY}')
    if unknown := [name for name in now if name not in before]:
        raise UsageError(
            f'{out} holds results of an older version, which did not record {", ".join(unknown)}: {REMEDY}'
        )


def _parse(line: bytes) -> dict[str, Any]:
    """Parse a line of the file; empty if it is incomplete."""
    try:
        content = json.loads(line)
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}
