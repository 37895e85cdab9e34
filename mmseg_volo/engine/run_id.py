"""Give each training an id, which its checkpoints hold, and keep two trainings out of one work dir."""

from __future__ import annotations

import uuid
from pathlib import Path

from mmseg_volo.errors import UsageError
from mmseg_volo.io.checkpoint import read_checkpoint
from mmseg_volo.io.model_spec import meta_of

RUN = 'run'  # meta[RUN]: id of a training


def new_run() -> str:
    """Return a new id for a training."""
    return uuid.uuid4().hex[:16]


def run_of(checkpoint: Path) -> str | None:
    """Return the id of the training that wrote a checkpoint; None if the checkpoint has none, or is damaged."""
    try:
        run: str | None = meta_of(read_checkpoint(checkpoint)).get(RUN)
        return run
    except (FileNotFoundError, UsageError):
        return None


def refuse_other_run(run: str | None, source: str, held: Path | None) -> None:
    """Refuse to resume into a work dir of another training: the two would delete each other's checkpoints.

    Args:
        run: id of the training to resume.
        source: the checkpoint to resume from.
        held: the last checkpoint of the work dir, if there is one.

    Raises:
        UsageError: `held` belongs to another training.
    """
    if held is None or (held_run := run_of(held)) is None:
        return
    if held.resolve().parent != Path(source).resolve().parent and held_run != run:
        raise UsageError(
            f'{source} belongs to another training than the one in {held.parent} ({held.name}): name another --work-dir'
        )
