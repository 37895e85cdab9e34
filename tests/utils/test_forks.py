"""Processes that are forked off one that has computed, with several threads."""

from __future__ import annotations

import multiprocessing
import os
import warnings
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.tiny_training import predictor

import mmseg_volo


def twice(checkpoint: Path, output: Connection) -> None:
    """Predicts, here and in a process that is forked off, as a pool's are."""
    torch.set_num_threads(2)
    model = mmseg_volo.load(checkpoint, device='cpu')
    image = np.random.default_rng(0).integers(0, 255, (256, 384, 3), np.uint8)
    wanted = mmseg_volo.predict(model, image).mask
    with multiprocessing.get_context('fork').Pool(1) as pool:
        output.send(pool.apply_async(again, (model, image, wanted, checkpoint)).get(60))


def again(model: torch.nn.Module, image: np.ndarray, wanted: np.ndarray, checkpoint: Path) -> tuple[bool, list[str]]:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter('always')
        same = np.array_equal(mmseg_volo.predict(model, image).mask, wanted)
        mmseg_volo.load(checkpoint, device='cpu')
    return same, [text for warning in said if (text := str(warning.message)).startswith('this process')]


@pytest.mark.skipif(not hasattr(os, 'fork'), reason='it forks')
def test_a_fork_of_a_process_that_has_computed_computes(tmp_path: Path) -> None:
    context = multiprocessing.get_context('forkserver')  # in which torch's threads have not been started
    context.set_forkserver_preload(['mmseg_volo.cli.commands', 'mmseg_volo.register_all'])
    reader, writer = context.Pipe(duplex=False)
    process = context.Process(target=twice, args=(predictor(tmp_path), writer))
    process.start()
    try:
        assert reader.poll(90), 'it hangs'
        same, said = reader.recv()
    finally:
        process.kill()
    assert same
    assert len(said) == 1 and 'had computed with 2 threads, which a fork does not copy: it computes with one' in said[0]
