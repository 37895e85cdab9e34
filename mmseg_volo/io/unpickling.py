"""Unpickle what mmengine saves in checkpoints besides tensors, without running any code of mmengine or NumPy.

mmengine saves log buffers as objects, with NumPy arrays and references to their own methods inside, and metrics as
NumPy's numbers. torch's restricted unpickler refuses all of them. Here each such name maps to a stand-in that keeps the
data and does nothing else: whatever the file does with it, only code of this module runs.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

KINDS = 'biufSU'  # NumPy's kinds of truth values, numbers and text; no Python objects


class Type:
    """Stand-in for numpy.dtype."""

    def __init__(self, code: str, *_: object):
        self.code, self.order = code, '='

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = state[1]

    def read(self, content: bytes, shape: tuple[int, ...]) -> np.ndarray:
        """Return the bytes of a file as an array.

        Raises:
            ValueError, TypeError: they hold no plain values, or too few.
        """
        if not isinstance(self.code, str) or self.code[:1] not in KINDS or not isinstance(content, (bytes, str)):
            raise ValueError(f'a NumPy array of type {self.code!r}')
        content = content.encode('latin1') if isinstance(content, str) else content
        order = self.order if self.order in ('<', '>') else ''
        return np.frombuffer(content, np.dtype(order + self.code)).reshape(shape)


class Array:
    """Stand-in for numpy.ndarray."""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, kind, by_columns, content = state
        values = kind.read(content, shape[::-1] if by_columns else shape)
        self.values = values.T if by_columns else values


class Buffer:
    """Stand-in for mmengine's HistoryBuffer."""


def _array(*_: object) -> Array:
    """Stand in for NumPy's function that creates an array, which the file then fills."""
    return Array()


def _scalar(kind: Type, content: bytes) -> Any:
    """Stand in for NumPy's function that creates a number; returns a Python number."""
    return kind.read(content, ()).item()


def _nothing(*_: object) -> None:
    """Stand in for `getattr`, by which a buffer refers to its own methods."""


STAND_INS: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    argparse.Namespace,  # of training scripts (timm, sail-sg/volo): only data, so the class itself is safe
    (Type, 'numpy.dtype'),
    (Array, 'numpy.ndarray'),
    *((_array, f'numpy.{core}.multiarray._reconstruct') for core in ('core', '_core')),
    *((_scalar, f'numpy.{core}.multiarray.scalar') for core in ('core', '_core')),
    (Buffer, 'mmengine.logging.history_buffer.HistoryBuffer'),
    (_nothing, 'builtins.getattr'),
]


def to_data(value: Any) -> Any:
    """Convert the content to plain containers: arrays to tensors (of text, to lists), buffers to dicts as this package
    saves them. Attributes that a file sets on a container or a tensor, to replace its methods, are dropped.

    Raises:
        AttributeError, KeyError, TypeError: the file has left a stand-in empty.
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
        histories = {key: to_data(vars(value)[f'_{key}']) for key in ('log_history', 'count_history')}
        return {**histories, 'max_length': vars(value)['max_length']}
    return value
