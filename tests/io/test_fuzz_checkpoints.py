"""Damaged checkpoints end in the right weights or in one of our errors: no crash, no hang, no wrong answer.

`FUZZ_CASES=20000 pytest -s tests/io/test_fuzz_checkpoints.py` for more than the default, with a count of outcomes.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch
from helpers.resuming import differing
from safetensors.torch import save_file
from torch import nn

from mmseg_volo.errors import UsageError
from mmseg_volo.io.checkpoint import RECORD, read_checkpoint, save_safetensors
from mmseg_volo.io.weights import strict_load, unwrap_state_dict

CASES = int(os.environ.get('FUZZ_CASES', 500))
PATIENCE = 20  # seconds per case
META = {
    RECORD: {
        'model': {'type': 'EncoderDecoder', 'crop': (4, 4), 'dims': [4, 8]},
        'test_pipeline': [{'type': 'Resize'}],
    },
    'dataset_meta': {'classes': ('road', 'car'), 'palette': [[1, 2, 3], [4, 5, 6]]},
}


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))


def training(weights: dict[str, torch.Tensor]) -> dict[str, Any]:
    hub = dict(log_scalars={'loss': dict(log_history=torch.ones(3), max_length=9)}, runtime_info=dict(iter=3))
    return dict(state_dict=weights, meta={**META, 'iter': 3}, message_hub=hub, optimizer=dict(state={0: torch.ones(4)}))


# name of the file -> (who writes it, whether it has checksums)
LAYOUTS: dict[str, tuple[Callable[[dict, Path], None], bool]] = {
    'ours.pth': (lambda w, path: torch.save(training(w), path), True),
    'official.pth.tar': (
        lambda w, path: torch.save(
            dict(epoch=3, args=argparse.Namespace(lr=1), state_dict_ema={f'module.{k}': v for k, v in w.items()}), path
        ),
        True,
    ),
    'legacy.pth': (lambda w, path: torch.save(w, path, _use_new_zipfile_serialization=False), False),
    'ours.safetensors': (lambda w, path: save_safetensors(w, path, {'source': 'x.pth'}, META), True),
    'theirs.safetensors': (lambda w, path: save_file(w, path, {'format': 'pt'}), False),
}


def flip(content: bytearray, dice: random.Random) -> None:
    content[dice.randrange(len(content))] ^= 1 << dice.randrange(8)


def flip_some(content: bytearray, dice: random.Random) -> None:
    for _ in range(dice.randint(2, 8)):
        flip(content, dice)


def overwrite(content: bytearray, dice: random.Random) -> None:
    start, length = dice.randrange(len(content)), dice.choice([1, 4, 8, 64, 512])
    content[start : start + length] = dice.choice([bytes(length), b'\xff' * length, dice.randbytes(length)])


def truncate(content: bytearray, dice: random.Random) -> None:
    del content[dice.randrange(len(content)) :]


def cut_out(content: bytearray, dice: random.Random) -> None:
    start = dice.randrange(len(content))
    del content[start : start + dice.choice([1, 8, 64])]


def repeat(content: bytearray, dice: random.Random) -> None:
    start = dice.randrange(len(content))
    content[start:start] = content[start : start + dice.choice([1, 8, 64, 512])]


def append(content: bytearray, dice: random.Random) -> None:
    content += dice.randbytes(dice.choice([1, 8, 512]))


DAMAGES = [flip, flip, flip_some, overwrite, truncate, cut_out, repeat, append]


class Hang(BaseException):
    """Not an Exception, which the code under test may catch."""


@contextmanager
def patience() -> Iterator[None]:
    def end(number: int, frame: FrameType | None) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(PATIENCE)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def outcome(path: Path, whole: dict[str, Any], checked: bool) -> str:
    """`refused` or `right`; `other numbers` where the format has no checksum that could tell.

    Raises:
        AssertionError: anything else.
    """
    try:
        with patience():
            content = read_checkpoint(path)
            model = network()
            strict_load(model, unwrap_state_dict(content, str(path)), path)
    except UsageError as error:
        assert str(path) in str(error) and len(str(error).splitlines()) == 1, error
        return 'refused'
    expected = network()
    expected.load_state_dict(unwrap_state_dict(whole, 'whole'))
    if checked:
        assert not differing(vars_of(content), vars_of(whole))
        assert not differing(model.state_dict(), expected.state_dict())
    return 'other numbers' if differing(model.state_dict(), expected.state_dict()) else 'right'


def vars_of(content: dict[str, Any]) -> dict[str, Any]:
    return {key: vars(value) if isinstance(value, argparse.Namespace) else value for key, value in content.items()}


@pytest.mark.parametrize('name', LAYOUTS)
def test_damaged_checkpoints(name: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    write, checked = LAYOUTS[name]
    path, dice, outcomes = tmp_path / name, random.Random(name), Counter()
    write(network().state_dict(), path)
    content, whole = path.read_bytes(), read_checkpoint(path)
    assert outcome(path, whole, checked) == 'right'
    for case in range(CASES // len(LAYOUTS)):
        damaged = bytearray(content)
        kind = dice.choice(DAMAGES)
        kind(damaged, dice)
        path.write_bytes(damaged)
        try:
            outcomes[outcome(path, whole, checked)] += 1
        except BaseException:
            print(f'case {case} of {name}: {kind.__name__}')
            raise
    print(f'\n{name}: {len(content)} bytes, {dict(outcomes)}')
    assert outcomes['refused'] > sum(outcomes.values()) / 4
