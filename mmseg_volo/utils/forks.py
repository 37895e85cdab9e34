"""Keep torch from hanging in a process forked from one in which it has computed: OpenMP's threads do not survive."""

from __future__ import annotations

import os
import warnings

import torch

_computed = False  # whether torch has computed in this process, on our behalf
_forked = False  # whether it had in the process that this one was forked from


def about_to_compute() -> None:
    """Limit torch to one thread in such a forked process; call this before torch computes.

    With more threads it would wait forever for those of its parent process. torch's data workers use one thread as
    well. Processes started by `spawn` keep all their threads.
    """
    global _computed
    if _forked and (threads := torch.get_num_threads()) > 1:
        torch.set_num_threads(1)
        warnings.warn(
            f'this process was forked from one that had computed with {threads} threads, which a fork does not copy: '
            f"it computes with one thread; start processes by multiprocessing.get_context('spawn') to use more",
            stacklevel=3,
        )
    _computed = True


def _note_fork() -> None:
    global _computed, _forked
    _computed, _forked = False, _forked or _computed


if hasattr(os, 'register_at_fork'):
    os.register_at_fork(after_in_child=_note_fork)
