"""A model that its own checkpoint describes takes about as many numbers as the checkpoint holds, and gets no more."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

TIMES = 4  # what is made while a model is built, per number and per tensor that it keeps
NUMBERS, TENSORS = 2**26, 10_000  # what any model may take beside


class TooLarge(Exception):
    """A model takes more than its checkpoint holds. mmengine makes errors of a part anew, with the part's name."""


class NoLargerThan(TorchDispatchMode):
    """Inside, torch makes no more tensors from nothing than a model of these weights has.

    Args:
        weights: of the checkpoint.

    Raises:
        TooLarge: it is asked for more; before memory is taken.
    """

    def __init__(self, weights: Iterable[Tensor]):
        super().__init__()
        weights = [tensor for tensor in weights if tensor.layout is torch.strided and tensor.device.type == 'cpu']
        stored = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in weights}
        self.numbers = TIMES * sum(stored.values()) + NUMBERS  # of a byte at least
        self.tensors = TIMES * len(weights) + TENSORS

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        shape = args[0] if args and isinstance(args[0], (list, tuple)) else None
        if shape is not None and all(isinstance(side, int) for side in shape):
            self.numbers -= math.prod(shape)
            self.tensors -= 1
            if min(self.numbers, self.tensors) < 0:
                raise TooLarge('more numbers than the checkpoint holds')
        return func(*args, **(kwargs or {}))
