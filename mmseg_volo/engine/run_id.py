"""Which training a checkpoint belongs to: each training has a name of its own, which its checkpoints hold."""

from __future__ import annotations

import uuid
from pathlib import Path

from mmseg_volo.errors import UsageError
from mmseg_volo.io.checkpoint import read_checkpoint
from mmseg_volo.io.model_spec import meta_of

RUN = 'run'  # meta[RUN]: the name of a training


def new_run() -> str:
    """A name for a training."""
    return uuid.uuid4().hex[:16]


def run_of(checkpoint: Path) -> str | None:
    """The training that a checkpoint is of; None of one that does not say it, or is damaged."""
    try:
        return meta_of(read_checkpoint(checkpoint)).get(RUN)
    except (FileNotFoundError, UsageError):
        return None


def refuse_other_run(run: str | None, source: str, held: Path | None) -> None:
    """A work dir holds one training: two would delete each other's checkpoints.

    Args:
        run: the training that is to be gone on with.
        source: the checkpoint that it comes from.
        held: the last checkpoint of the work dir, if there is one.

    Raises:
        UsageError: it is of another training.
    """
    if held is None or (mine := run_of(held)) is None:
        return
    if held.resolve().parent != Path(source).resolve().parent and mine != run:
        raise UsageError(
            f'{source} belongs to another training than {held.parent} holds ({held.name}): name another --work-dir'
        )
