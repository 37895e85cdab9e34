"""Processes that are forked off one in which torch has computed: the threads of OpenMP are not in them."""

from __future__ import annotations

import os
import warnings

import torch

_computed = False  # torch, for us, in this process
_forked = False  # off a process in which it had


def about_to_compute() -> None:
    """To be called before torch computes.

    With several threads a forked process would wait for ever for those of the process that it comes from: it computes
    with one, as torch's data workers do. Who starts processes by `spawn` has as many as ever.
    """
    global _computed
    if _forked and (threads := torch.get_num_threads()) > 1:
        torch.set_num_threads(1)
        warnings.warn(
            f'this process was forked off one that had computed with {threads} threads, which are not in it: it '
            f"computes with one; multiprocessing.get_context('spawn') starts processes that have their own",
            stacklevel=3,
        )
    _computed = True


def _note_fork() -> None:
    global _computed, _forked
    _computed, _forked = False, _forked or _computed


if hasattr(os, 'register_at_fork'):
    os.register_at_fork(after_in_child=_note_fork)
