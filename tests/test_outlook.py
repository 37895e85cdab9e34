"""Outlook attention against the formula of the official code: unfold, product, fold."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from mmseg_volo.backbones.outlook import OutlookAttention, gather_windows, scatter_windows


def official(module: OutlookAttention, x: Tensor) -> Tensor:
    """sail-sg/volo, models/volo.py, OutlookAttention.forward, with kernel 3, stride 2, padding 1."""
    batch, height, width, dim = x.shape
    heads, h, w = module.num_heads, math.ceil(height / 2), math.ceil(width / 2)
    v = F.unfold(module.v(x).permute(0, 3, 1, 2), 3, padding=1, stride=2)
    v = v.reshape(batch, heads, dim // heads, 9, h * w).permute(0, 1, 4, 3, 2)
    attn = module.attn(F.avg_pool2d(x.permute(0, 3, 1, 2), 2, 2, ceil_mode=True).permute(0, 2, 3, 1))
    attn = attn.reshape(batch, h * w, heads, 9, 9).permute(0, 2, 1, 3, 4)
    attn = (attn * module.scale).softmax(-1)
    out = (attn @ v).permute(0, 1, 4, 3, 2).reshape(batch, dim * 9, h * w)
    return module.proj(F.fold(out, (height, width), 3, padding=1, stride=2).permute(0, 2, 3, 1))


SIZES = [(2, 2), (3, 3), (4, 7), (7, 4), (14, 14), (28, 31), (1, 5)]


@pytest.mark.parametrize('size', SIZES)
def test_same_numbers_and_gradients(size: tuple[int, int]) -> None:
    module = OutlookAttention(24, 3).double()
    inputs = [torch.randn(2, *size, 24, dtype=torch.double).requires_grad_() for _ in range(1)] * 2
    weight = torch.randn(2, *size, 24, dtype=torch.double)
    results = []
    for run, x in zip((module, lambda x: official(module, x)), inputs, strict=True):
        out = run(x)
        results.append((out, *torch.autograd.grad((out * weight).sum(), [x, *module.parameters()])))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize('size', SIZES)
def test_windows_are_unfold_and_fold(size: tuple[int, int]) -> None:
    x = torch.randn(2, *size, 5)
    windows = gather_windows(x)  # (B, h, w, C, 3, 3)
    unfolded = F.unfold(x.permute(0, 3, 1, 2), 3, padding=1, stride=2)
    assert torch.equal(windows.flatten(1, 2).flatten(2).transpose(1, 2), unfolded)
    folded = F.fold(unfolded, size, 3, padding=1, stride=2).permute(0, 2, 3, 1)
    torch.testing.assert_close(scatter_windows(windows.permute(0, 1, 2, 4, 5, 3), *size), folded)


class Seen(TorchDispatchMode):
    """The names of the operators that ran."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # noqa: ANN001
        self.names.add(func.name())
        return func(*args, **(kwargs or {}))


def test_no_col2im() -> None:
    module, x = OutlookAttention(24, 3), torch.randn(1, 8, 8, 24, requires_grad=True)
    with Seen() as ours:
        module(x).sum().backward()
    with Seen() as theirs:
        official(module, x).sum().backward()
    forbidden = {'aten::col2im', 'aten::im2col'}
    assert forbidden <= theirs.names  # the probe sees them
    assert not forbidden & ours.names
