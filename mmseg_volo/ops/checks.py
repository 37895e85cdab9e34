"""Check the inputs of outlook attention: its kernels read memory by these shapes, without checks of their own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

TAPS = 9  # pixels of a window


def check_inputs(v: Tensor, logits: Tensor, dtypes: Sequence[torch.dtype], head_dims: range) -> None:
    """Check that `v` is a map (B, H, W, C) and `logits` (B, ceil(H / 2), ceil(W / 2), heads, 9, 9) belongs to it.

    Args:
        dtypes: allowed for both.
        head_dims: allowed values of C / heads.

    Raises:
        ValueError: shapes, dtypes or devices do not fit, or a tensor is not contiguous.
    """
    if v.dim() != 4 or logits.dim() != 6:
        raise ValueError(f'expected v (B, H, W, C) and logits (B, h, w, heads, 9, 9), got {_shapes(v, logits)}')
    batch, height, width, dim = v.shape
    heads = logits.shape[3]
    if logits.shape != (batch, (height + 1) // 2, (width + 1) // 2, heads, TAPS, TAPS):
        raise ValueError(f'expected logits (B, ceil(H / 2), ceil(W / 2), heads, 9, 9) of v, got {_shapes(v, logits)}')
    if dim and (not heads or dim % heads or dim // heads not in head_dims):
        raise ValueError(
            f'expected heads of {head_dims[0]} to {head_dims[-1]} channels, got {dim} channels for {heads} heads'
        )
    if v.dtype not in dtypes:
        raise ValueError(f'expected v of {", ".join(map(str, dtypes))}, got {v.dtype}')
    check_alike('logits', logits, logits.shape, v.dtype, v)
    check_alike('v', v, v.shape, v.dtype, v)


def check_alike(name: str, x: Tensor, shape: Sequence[int], dtype: torch.dtype, v: Tensor) -> None:
    """Check that a tensor has this shape and dtype, is on the device of `v`, and is contiguous.

    Raises:
        ValueError: it is not.
    """
    if x.shape != tuple(shape) or x.dtype != dtype or x.device != v.device:
        raise ValueError(
            f'expected {name} {tuple(shape)} of {dtype} on {v.device}, got {tuple(x.shape)} of {x.dtype} on {x.device}'
        )
    if x.layout != torch.strided or not x.is_contiguous():
        raise ValueError(f'expected {name} dense and contiguous: call contiguous() first')
    if x.numel() and not x.data_ptr():
        raise ValueError(f'expected {name} with values, but its memory was freed')


def _shapes(v: Tensor, logits: Tensor) -> str:
    return f'{tuple(v.shape)} and {tuple(logits.shape)}'
