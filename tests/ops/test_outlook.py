"""Outlook attention by torch's operators, against the formula of the official code: unfold, product, fold."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from helpers.outlook_official import official
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from mmseg_volo.models.backbones.volo import OutlookAttention
from mmseg_volo.ops import outlook_cuda as kernels
from mmseg_volo.ops.outlook_attention import gather_windows, outlook, scatter_windows

SIZES = [(1, 1), (2, 2), (3, 3), (4, 7), (7, 4), (14, 14), (28, 31), (1, 5)]
sizes = pytest.mark.parametrize('size', SIZES)


def inputs(size: tuple[int, int], heads: int = 3, batch: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    """A map, logits, and a gradient of the result, in float64."""
    height, width = size
    v = torch.randn(batch, *size, 4 * heads, dtype=torch.double, requires_grad=True)
    logits = 3 * torch.randn(batch, -(-height // 2), -(-width // 2), heads, 9, 9, dtype=torch.double)
    return v, logits.requires_grad_(), torch.randn_like(v)


@sizes
def test_same_numbers_and_gradients(size: tuple[int, int]) -> None:
    v, logits, weight = inputs(size)
    results = []
    for run in (outlook, official):
        out = run(v, logits)
        results.append((out, *torch.autograd.grad(out, (v, logits), weight)))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize('size', [(1, 1), (4, 3), (3, 6)])
def test_gradients_are_those_of_differences(size: tuple[int, int]) -> None:
    v, logits, _ = inputs(size, heads=2, batch=1)
    assert torch.autograd.gradcheck(outlook, (v, logits))


def test_the_whole_layer() -> None:
    """Its logits come from the mean over 2x2 pixels, in ceil mode."""
    layer, x = OutlookAttention(24, 3).double(), torch.randn(2, 5, 7, 24, dtype=torch.double)
    centre = F.avg_pool2d(x.permute(0, 3, 1, 2), 2, 2, ceil_mode=True).permute(0, 2, 3, 1)
    expected = layer.proj(official(layer.v(x), layer.attn(centre).unflatten(-1, (3, 9, 9))))
    torch.testing.assert_close(layer(x), expected, rtol=1e-10, atol=1e-12)


@sizes
def test_windows_are_unfold_and_fold(size: tuple[int, int]) -> None:
    x = torch.randn(2, *size, 5)
    windows = gather_windows(x[:, :, :, None]).squeeze(3)  # (B, h, w, 9, C)
    unfolded = F.unfold(x.permute(0, 3, 1, 2), 3, padding=1, stride=2)
    assert torch.equal(windows.mT.flatten(1, 2).flatten(2).transpose(1, 2), unfolded)
    folded = F.fold(unfolded, size, 3, padding=1, stride=2).permute(0, 2, 3, 1)
    torch.testing.assert_close(scatter_windows(windows.unflatten(3, (3, 3)), *size), folded)


class Seen(TorchDispatchMode):
    """The names of the operators that ran."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # noqa: ANN001
        self.names.add(func.name())
        return func(*args, **(kwargs or {}))


def test_no_col2im() -> None:
    v, logits, _ = inputs((8, 8))
    with Seen() as ours:
        outlook(v, logits).sum().backward()
    with Seen() as theirs:
        official(v, logits).sum().backward()
    assert {'aten::col2im', 'aten::im2col'} <= theirs.names  # the probe sees them
    assert not {'aten::col2im', 'aten::im2col', 'aten::unfold_backward'} & ours.names


@pytest.mark.parametrize('grad', [False, True])
def test_compiled_without_a_graph_break(grad: bool) -> None:
    v, logits, weight = inputs((6, 9))
    expected = torch.autograd.grad(official(v, logits), (v, logits), weight)
    compiled = torch.compile(outlook, backend='aot_eager', fullgraph=True)
    with torch.set_grad_enabled(grad):
        out = compiled(v, logits)
    torch.testing.assert_close(out, official(v, logits), rtol=1e-10, atol=1e-12)
    if grad:
        for a, b in zip(torch.autograd.grad(out, (v, logits), weight), expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_kernels_take_only_what_they_can(monkeypatch: pytest.MonkeyPatch) -> None:
    class OnCuda:
        """A tensor as far as the choice looks at it."""

        is_cuda = True

        def __init__(self, *shape: int, dtype: torch.dtype = torch.bfloat16):
            self.like, self.shape, self.dtype = torch.empty(shape, device='meta'), shape, dtype

        def __getitem__(self, index: int) -> Tensor:
            return self.like[index]

    v, logits = OnCuda(2, 8, 8, 64), OnCuda(2, 4, 4, 2, 9, 9)
    monkeypatch.setattr(kernels, 'HAS_TRITON', True)
    assert kernels.usable(v, logits)
    assert not kernels.usable(OnCuda(2, 8, 8, 64, dtype=torch.float32), logits)  # mixed
    assert not kernels.usable(*(OnCuda(*t.shape, dtype=torch.float64) for t in (v, logits)))
    assert not kernels.usable(OnCuda(2, 8, 8, 258), logits)  # heads of 129 channels
    assert not kernels.usable(OnCuda(1, 2**14, 2**14, 64), logits)
    assert not kernels.usable(torch.empty(2, 8, 8, 64), logits)  # on a CPU
    monkeypatch.setattr(kernels, 'HAS_TRITON', False)
    assert not kernels.usable(v, logits)


def test_the_environment_turns_kernels_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, 'version', lambda name: '3.7.1')
    assert kernels._has_triton()
    monkeypatch.setattr(kernels, 'version', lambda name: '3.0.0')
    assert not kernels._has_triton()
    monkeypatch.setattr(kernels, 'version', lambda name: '3.7.1')
    monkeypatch.setenv('MMSEG_VOLO_TRITON', '0')
    assert not kernels._has_triton()


def test_kernels_are_not_imported_before_they_are_needed() -> None:
    code = 'import sys, mmseg_volo; sys.exit("mmseg_volo.ops.outlook_triton" in sys.modules)'
    assert subprocess.run([sys.executable, '-c', code]).returncode == 0
