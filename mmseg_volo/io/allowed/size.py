"""Bound the memory of a model that a checkpoint describes by the number of values that the checkpoint holds."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

TIMES = 4  # numbers and tensors created while a model is built, per one that it keeps
NUMBERS, TENSORS = 2**26, 10_000  # allowance on top, for any model


class TooLarge(Exception):
    """A model needs more memory than its checkpoint justifies. Takes one argument, as mmengine builds a component's
    error anew with the component's name."""


class NoLargerThan(TorchDispatchMode):
    """Context in which torch creates no more numbers and tensors than building a model of these weights needs.

    Args:
        weights: of the checkpoint.

    Raises:
        TooLarge: more is requested; raised before memory is allocated.
    """

    def __init__(self, weights: Iterable[Tensor]):
        super().__init__()
        weights = [tensor for tensor in weights if tensor.layout is torch.strided and tensor.device.type == 'cpu']
        stored = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in weights}
        self.numbers = TIMES * sum(stored.values()) + NUMBERS  # a number has at least one byte
        self.tensors = TIMES * len(weights) + TENSORS

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        shape = args[0] if args and isinstance(args[0], (list, tuple)) else None
        if shape is not None and all(isinstance(side, int) for side in shape):
            self.numbers -= math.prod(shape)
            self.tensors -= 1
            if min(self.numbers, self.tensors) < 0:
                raise TooLarge('more numbers than the checkpoint holds')
        return func(*args, **(kwargs or {}))
