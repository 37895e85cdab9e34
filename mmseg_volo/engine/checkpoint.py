"""Write checkpoints that survive a crash or a full disk, and find the newest intact one."""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from mmseg_volo.engine.loop import VALIDATED
from mmseg_volo.engine.run_id import run_of
from mmseg_volo.errors import UsageError
from mmseg_volo.io.checkpoint import find_damage
from mmseg_volo.utils.files import AtomicFile, remove_scratch_files, sync_folder, write_whole

POINTER = 'last_checkpoint'
DROPPED = 'dropped_ckpt_ids'  # message_hub: iterations whose checkpoints are deleted once this one is written
NUMBERED = re.compile(r'(?:iter|epoch)_(\d+)\.pth')


def write_checkpoint(content: Mapping[str, Any], path: Path) -> None:
    """Stream a checkpoint into a hidden file beside `path`, sync it to disk, and rename it.

    Raises:
        UsageError: it cannot be written; an existing file is untouched.
    """
    try:
        with AtomicFile(path) as temporary, temporary.open('wb') as file:
            torch.save(content, file)
        sync_folder(path.parent)
    except (OSError, RuntimeError) as error:  # torch's writer raises the latter after the former
        cause = error.__context__ if isinstance(error.__context__, OSError) else error
        reason = getattr(cause, 'strerror', None) or str(cause).strip().splitlines()[0]
        remedy = 'free some space' if path.parent.is_dir() else f'find out why {path.parent.absolute()} is gone'
        raise UsageError(
            f'the checkpoint {path.absolute()} cannot be written ({reason}): {remedy}, then continue from the last '
            f'good one with --resume'
        ) from error


def newest_checkpoint(work_dir: Path) -> tuple[Path | None, list[str]]:
    """Find the checkpoint to resume from: the intact one of most iterations, of the training that wrote the last one.

    Args:
        work_dir: folder of `iter_N.pth` (or `epoch_N.pth`); `last_checkpoint` may name one elsewhere.

    Returns:
        Its path, or None if there is no checkpoint, and a sentence for each one that was skipped.

    Raises:
        UsageError: there are checkpoints, but none is intact.
    """
    skipped: list[str] = []
    paths = _by_age(work_dir)
    last = last_checkpoint(work_dir)
    run = last and run_of(last)
    for path in paths:
        reason = find_damage(path)
        if reason is None and run and path != last and run_of(path) != run:
            reason = 'it belongs to another training'
        if reason is None:
            return path, skipped
        skipped.append(f'{path.name} is skipped: {reason}')
    if paths:
        raise UsageError(
            f'--resume: no checkpoint in {work_dir.absolute()} is intact ({"; ".join(skipped)}): remove them to start '
            f'anew'
        )
    return None, []


def resumed_from(cfg: Config) -> str | None:
    """Return the checkpoint that `--resume` continues: `load_from`, else the newest intact one of the work dir.

    Raises:
        UsageError: see `newest_checkpoint`.
    """
    if source := cfg.get('load_from'):
        return str(source)
    path, _ = newest_checkpoint(Path(cfg.work_dir))
    return None if path is None else str(path)


def _by_age(work_dir: Path) -> list[Path]:
    """Return the numbered checkpoints of a work dir, and its last one wherever that lies, the newest first."""
    last = last_checkpoint(work_dir)
    paths = [*work_dir.glob('*.pth'), *([] if last is None else [last])]
    numbers = {path: int(match[1]) for path in paths if (match := NUMBERED.fullmatch(path.name))}
    return sorted(numbers, key=lambda path: numbers[path], reverse=True)


def last_checkpoint(work_dir: Path) -> Path | None:
    """Return the checkpoint that the file `last_checkpoint` names, if it exists."""
    try:
        named = work_dir / (work_dir / POINTER).read_text().strip()
        return named if NUMBERED.fullmatch(named.name) and named.is_file() else None
    except (OSError, ValueError):  # no such file, or garbage in it
        return None


@HOOKS.register_module()
class SafeCheckpointHook(CheckpointHook):
    """Save checkpoints as mmengine's hook does, but delete an old one only when the new one is on disk, and survive a
    moved work dir.

    The arguments are those of `CheckpointHook`, for folders of the local file system.
    """

    keep_ckpt_ids: deque[int]

    def before_train(self, runner: Runner) -> None:
        """Find the best checkpoint again, also in a moved work dir, and clean up after a killed process."""
        info = runner.message_hub.runtime_info
        folder = Path(self.out_dir or runner.work_dir)
        for key in info:
            if key.startswith('best_ckpt') and info[key]:  # deleted when there is a better one
                name = Path(str(info[key])).name
                info[key] = str(folder / name) if name.startswith('best_') and name.endswith('.pth') else None
        super().before_train(runner)
        if is_main_process():
            remove_scratch_files(Path(self.out_dir), '*.pth')
            remove_scratch_files(Path(runner.work_dir), POINTER)
            self._remove(info.get(DROPPED, []))

    def save(self, runner: Runner, iteration: int) -> str:
        """Save the state after `iteration` iterations unless it is saved already.

        Returns:
            The path of the checkpoint.
        """
        if self.last_ckpt is None or Path(self.last_ckpt).name != self.filename_tmpl.format(iteration):
            self._save_checkpoint_with_step(runner, iteration, dict(epoch=runner.epoch, iter=iteration))
        return str(self.last_ckpt)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None) -> None:
        """Save the best checkpoint, and note that this iteration is validated."""
        runner.message_hub.update_info(VALIDATED, runner.iter)
        super().after_val_epoch(runner, metrics)

    def _save_best_checkpoint(self, runner: Runner, metrics: dict[str, float]) -> None:
        before = self._best()
        if hasattr(self, 'best_ckpt_path'):
            self.best_ckpt_path = None  # mmengine would delete the old one first
        else:
            self.best_ckpt_path_dict = dict.fromkeys(before)
        super()._save_best_checkpoint(runner, metrics)
        after = self._best()
        for key, old in before.items():
            if after.get(key) is None and hasattr(self, 'best_ckpt_path'):
                self.best_ckpt_path = old
            elif after.get(key) is None:
                self.best_ckpt_path_dict[key] = old
            elif old and old != after[key] and is_main_process():
                Path(old).unlink(missing_ok=True)

    def _best(self) -> dict[str, str | None]:
        if not self.save_best:
            return {}
        return dict(self.best_ckpt_path_dict) if hasattr(self, 'best_ckpt_path_dict') else {'': self.best_ckpt_path}

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict[str, Any]) -> None:
        dropped: list[int] = []
        if self.max_keep_ckpts > 0:
            kept = [s for s in self.keep_ckpt_ids if s != step] + [step]
            dropped, kept = kept[: -self.max_keep_ckpts], kept[-self.max_keep_ckpts :]
            self.keep_ckpt_ids = deque(kept, self.max_keep_ckpts)
            runner.message_hub.update_info('keep_ckpt_ids', kept)
            runner.message_hub.update_info(DROPPED, dropped)
        name = self.filename_tmpl.format(step)
        self.last_ckpt = str(Path(self.out_dir) / name)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        runner.save_checkpoint(
            self.out_dir,
            name,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta=meta,
            by_epoch=self.by_epoch,
        )
        if is_main_process():
            pointer = Path(runner.work_dir) / POINTER
            write_whole(pointer, os.path.relpath(self.last_ckpt, runner.work_dir).encode())
            self._remove(dropped)

    def _remove(self, steps: Sequence[int]) -> None:
        for step in steps:
            (Path(self.out_dir) / self.filename_tmpl.format(step)).unlink(missing_ok=True)
