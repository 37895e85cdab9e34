"""The numbers of the Triton kernels, through Triton's interpreter; `test_outlook_triton.py` runs this file by itself.

The interpreter is chosen by TRITON_INTERPRET=1 before Triton is imported, for the whole process.
"""

from __future__ import annotations

import math

import pytest
import torch

from helpers.outlook_official import official
from mmseg_volo.models.backbones.volo import OutlookAttention
from mmseg_volo.ops import outlook_cuda as kernels

# what rounding the inputs' products and the result to a dtype may cost, relative to the largest value
TOLERANCE = {torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}
CASES = [  # batch, height, width, heads, channels of a head, dtype; a tile is 4x8 windows of 32 channels
    (2, 5, 7, 1, 32, torch.float32),
    (1, 9, 18, 1, 32, torch.bfloat16),  # two tiles in both directions
    (1, 3, 4, 2, 20, torch.float16),  # channels that fill no tile
]


@pytest.mark.parametrize('case', CASES, ids=str)
def test_same_as_the_formula_in_float64(case: tuple) -> None:
    batch, height, width, heads, head_dim, dtype = case
    v = torch.randn(batch, height, width, heads * head_dim).to(dtype)
    logits = (8 * torch.randn(batch, math.ceil(height / 2), math.ceil(width / 2), heads, 9, 9)).to(dtype)
    grad = torch.randn_like(v)
    results = []
    for run, cast in ((lambda *x: kernels.outlook(*x)[0], dtype), (official, torch.double)):
        leaves = [x.to(cast, copy=True).requires_grad_() for x in (v, logits)]
        out = run(*leaves)
        results.append((out, *torch.autograd.grad(out, leaves, grad.to(cast))))
    for name, a, b in zip(('out', 'grad of v', 'grad of logits'), *results, strict=True):
        assert a.dtype == dtype and a.shape == b.shape and a.is_contiguous()
        assert (a - b).abs().max() <= TOLERANCE[dtype] * b.abs().max(), name


def test_large_logits_do_not_overflow() -> None:
    v = torch.randn(1, 4, 4, 16)
    logits = 1e4 * torch.randn(1, 2, 2, 1, 9, 9)
    leaves = [x.requires_grad_() for x in (v, logits)]
    out = kernels.outlook(*leaves)[0]
    torch.testing.assert_close(out, official(v, logits), rtol=1e-5, atol=1e-5)
    assert all(g.isfinite().all() for g in torch.autograd.grad(out.sum(), leaves))


def test_the_operator_is_registered_as_torch_wants_it() -> None:
    """Schema, autograd, shapes without data; not compared as compiled, as some sums are never written."""
    args = (torch.randn(1, 3, 5, 16, requires_grad=True), torch.randn(1, 2, 3, 1, 9, 9, requires_grad=True))
    checks = ('test_schema', 'test_autograd_registration', 'test_faketensor')
    torch.library.opcheck(kernels.outlook, args, test_utils=checks)


def test_raw_operators_take_only_what_the_kernels_read() -> None:
    v, logits = torch.randn(2, 4, 6, 32), torch.randn(2, 2, 3, 2, 9, 9)
    for wrong in (
        (v.double(), logits.double()),
        (v.half(), logits),
        (v[:1].expand_as(v), logits),
        (v, logits[:1]),
        (v, logits[..., :1]),
        (v[..., :31].contiguous(), logits),
        (v[0], logits),
    ):
        with pytest.raises(ValueError, match='expected '):
            kernels.outlook(*wrong)
    lse = kernels.outlook(v, logits)[1]
    for grad, sums in ((torch.ones(1), lse), (v.half(), lse), (torch.ones(1).expand_as(v), lse), (v, lse[:1])):
        with pytest.raises(ValueError, match='expected '):
            kernels.outlook_backward(grad, v, logits, sums)
    for empty in ((v[:0], logits[:0]), (v[:, :0], logits[:, :0])):
        leaves = [x.clone().requires_grad_() for x in empty]
        out = kernels.outlook(*leaves)[0]
        grads = torch.autograd.grad(out.sum(), leaves)
        assert [x.shape for x in (out, *grads)] == [empty[0].shape, *(x.shape for x in empty)]


def test_the_layer_takes_it_compiled_without_a_graph_break(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, 'usable', lambda v, logits: True)
    layer, x = OutlookAttention(16, 1), torch.randn(1, 5, 6, 16)
    results = []
    for run in (layer, torch.compile(layer, backend='aot_eager', fullgraph=True)):
        out = run(x)
        results.append((out, *torch.autograd.grad(out.square().sum(), layer.parameters())))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b)
