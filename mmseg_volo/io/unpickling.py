"""What mmengine leaves in its checkpoints besides tensors, read without running a line of mmengine's or NumPy's.

mmengine saves log buffers as objects, with NumPy arrays and references to their own methods inside, and metrics as
NumPy's numbers. torch's restricted unpickler refuses all of them. Here each such name is answered by a stand-in that
keeps the data and does nothing else: whatever the file makes of it, no code but this file's runs.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import torch
from torch import Tensor

KINDS = 'biufSU'  # of NumPy's types: truth values, numbers, text; no Python objects


class Type:
    """numpy.dtype."""

    def __init__(self, code: str, *_: Any):
        self.code, self.order = code, '='

    def __setstate__(self, state: tuple) -> None:
        self.order = state[1]

    def read(self, content: bytes, shape: tuple[int, ...]) -> np.ndarray:
        """An array of the bytes that a file holds.

        Raises:
            ValueError, TypeError: they are no plain values, or too few.
        """
        if not isinstance(self.code, str) or self.code[:1] not in KINDS or not isinstance(content, (bytes, str)):
            raise ValueError(f'a NumPy array of type {self.code!r}')
        content = content.encode('latin1') if isinstance(content, str) else content
        order = self.order if self.order in ('<', '>') else ''
        return np.frombuffer(content, np.dtype(order + self.code)).reshape(shape)


class Array:
    """numpy.ndarray."""

    def __setstate__(self, state: tuple) -> None:
        _, shape, kind, by_columns, content = state
        values = kind.read(content, shape[::-1] if by_columns else shape)
        self.values = values.T if by_columns else values


class Buffer:
    """mmengine's HistoryBuffer."""


def _array(*_: Any) -> Array:
    """NumPy's function that makes an array, which the file then fills."""
    return Array()


def _scalar(kind: Type, content: bytes) -> Any:
    """NumPy's function that makes a number, as Python's."""
    return kind.read(content, ()).item()


def _nothing(*_: Any) -> None:
    """Takes the place of `getattr`, by which a buffer refers to its own methods."""


STAND_INS = [
    argparse.Namespace,  # of training scripts (timm, sail-sg/volo): a plain record, as itself
    (Type, 'numpy.dtype'),
    (Array, 'numpy.ndarray'),
    *((_array, f'numpy.{core}.multiarray._reconstruct') for core in ('core', '_core')),
    *((_scalar, f'numpy.{core}.multiarray.scalar') for core in ('core', '_core')),
    (Buffer, 'mmengine.logging.history_buffer.HistoryBuffer'),
    (_nothing, 'builtins.getattr'),
]


def to_data(value: Any) -> Any:
    """The same content in plain containers: tensors for arrays (lists for text), and dicts for buffers, as our own
    trainings save them. What a file may hang on a container or a tensor, in place of its methods, is left behind.

    Raises:
        AttributeError, KeyError, TypeError: the file left a stand-in empty.
    """
    if isinstance(value, Tensor):
        return Tensor.detach(value)
    if isinstance(value, dict):
        return {to_data(key): to_data(inner) for key, inner in dict.items(value)}
    if isinstance(value, (list, tuple)):
        return (list if isinstance(value, list) else tuple)(to_data(inner) for inner in value)
    if isinstance(value, Array):
        text = value.values.dtype.kind in 'SU'
        native = value.values.astype(value.values.dtype.newbyteorder('='))
        return native.tolist() if text else torch.from_numpy(native)
    if isinstance(value, Buffer):
        found = {key: to_data(vars(value)[f'_{key}']) for key in ('log_history', 'count_history')}
        return {**found, 'max_length': vars(value)['max_length']}
    return value
