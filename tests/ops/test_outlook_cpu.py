"""The compiled kernel of outlook attention for CPUs, against the formula of the official code in float64."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from helpers.outlook_official import official
from torch import Tensor

from mmseg_volo.models.backbones.volo import OutlookAttention
from mmseg_volo.ops import outlook_cpu as kernel
from mmseg_volo.ops.outlook_attention import outlook

pytestmark = pytest.mark.skipif(kernel.LIBRARY is None, reason='the kernel is not compiled: a C compiler was missing')

SIZES = [(1, 1), (2, 2), (3, 3), (4, 7), (7, 4), (14, 14), (28, 31), (1, 5), (5, 1)]
# what rounding the result, and where there is one the input, to a dtype may cost, relative to the largest value
TOLERANCE = {torch.float32: 1e-6, torch.bfloat16: 2**-8}


def inputs(
    size: tuple[int, int], heads: int = 3, batch: int = 2, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor, Tensor]:
    """A map, logits, and a gradient of the result."""
    v = torch.randn(batch, *size, 32 * heads).to(dtype)
    logits = (8 * torch.randn(batch, math.ceil(size[0] / 2), math.ceil(size[1] / 2), heads, 9, 9)).to(dtype)
    return v.requires_grad_(), logits.requires_grad_(), torch.randn_like(v)


def results(run: Callable[..., Tensor], v: Tensor, logits: Tensor, grad: Tensor) -> tuple[Tensor, ...]:
    out = run(v, logits)
    return out, *torch.autograd.grad(out, (v, logits), grad)


def in_float64(v: Tensor, logits: Tensor, grad: Tensor) -> tuple[Tensor, ...]:
    return results(official, *(x.detach().double().requires_grad_() for x in (v, logits)), grad.double())


@pytest.mark.parametrize('dtype', TOLERANCE, ids=str)
@pytest.mark.parametrize('size', SIZES)
def test_same_as_the_formula(size: tuple[int, int], dtype: torch.dtype) -> None:
    args = inputs(size, dtype=dtype)
    assert kernel.usable(*args[:2])
    for ours, theirs in zip(results(outlook, *args), in_float64(*args), strict=True):
        assert ours.dtype == dtype and ours.shape == theirs.shape
        assert (ours - theirs).abs().max() <= TOLERANCE[dtype] * theirs.abs().max()


def test_same_bits_on_any_number_of_threads() -> None:
    """Also where parts of the map meet, in float32 and in bfloat16."""
    for dtype in TOLERANCE:
        args = inputs((13, 6), heads=1, batch=3, dtype=dtype)
        before = torch.get_num_threads()
        try:
            runs = []
            for threads in (1, 2, 5, 64):
                torch.set_num_threads(threads)
                runs.append(results(outlook, *args))
        finally:
            torch.set_num_threads(before)
        for run in runs[1:]:
            assert all(map(torch.equal, run, runs[0]))


def test_views_are_taken() -> None:
    v, logits, grad = inputs((6, 5), heads=2)
    views = [torch.cat([x, x], -1).detach()[..., : x.shape[-1]].requires_grad_() for x in (v, logits)]
    grad = grad.transpose(1, 2).contiguous().transpose(1, 2)
    assert not any(x.is_contiguous() for x in (*views, grad))
    for ours, theirs in zip(results(outlook, *views, grad), results(outlook, v, logits, grad), strict=True):
        assert torch.equal(ours, theirs)


def test_large_logits_do_not_overflow_and_nan_is_not_hidden() -> None:
    v, logits, grad = inputs((4, 4), heads=1, batch=1)
    with torch.no_grad():
        logits *= 1e4
    for ours, theirs in zip(results(outlook, v, logits, grad), in_float64(v, logits, grad), strict=True):
        torch.testing.assert_close(ours, theirs.float(), rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        logits[0, 1, 1, 0, 4, 7] = math.nan  # the centre of the last window
        out = outlook(v, logits)
    assert out[0, 2, 2].isnan().all() and out.isnan().sum() == 32


def test_the_operator_is_registered_as_torch_wants_it() -> None:
    torch.library.opcheck(kernel.outlook, inputs((3, 5), heads=1, batch=1)[:2])


@pytest.mark.parametrize('grad', [False, True])
def test_compiled_without_a_graph_break(grad: bool) -> None:
    layer, x = OutlookAttention(64, 2), torch.randn(2, 5, 6, 64)
    compiled = torch.compile(layer, backend='aot_eager', fullgraph=True)
    with torch.set_grad_enabled(grad):
        runs = [run(x) for run in (layer, compiled)]
    if grad:
        runs = [(out, *torch.autograd.grad(out.square().sum(), layer.parameters())) for out in runs]
    for a, b in zip(*runs, strict=True):
        torch.testing.assert_close(a, b)


def test_takes_only_what_it_can(monkeypatch: pytest.MonkeyPatch) -> None:
    v, logits, _ = inputs((4, 4), heads=2)
    assert kernel.usable(v, logits)
    assert not kernel.usable(v.double(), logits.double())
    assert not kernel.usable(v.bfloat16(), logits)
    assert not kernel.usable(torch.empty(2, 4, 4, 48), logits)  # heads of 24 channels
    assert not kernel.usable(v[:0], logits[:0])
    assert not kernel.usable(v.to('meta'), logits.to('meta'))
    monkeypatch.setattr(kernel, 'LIBRARY', None)
    assert not kernel.usable(v, logits)
    assert outlook(v[:0], logits[:0]).shape == (0, 4, 4, 64)


HOSTILE = """
import torch
forward, backward = torch.ops.mmseg_volo.outlook_cpu, torch.ops.mmseg_volo.outlook_cpu_backward

def inputs(batch=2, height=4, heads=2):
    return torch.randn(batch, height, 6, 32 * heads), torch.randn(batch, height // 2, 3, heads, 9, 9)

v, logits = inputs()
for call in (
    lambda: forward(v.half(), logits.half()), lambda: forward(v.double(), logits.double()),
    lambda: forward(v.bfloat16(), logits), lambda: forward(v[:1].expand_as(v), logits),
    lambda: forward(v, logits[:, :, :, :, :1].expand_as(logits)), lambda: forward(v.to_sparse(), logits),
    lambda: forward(v, logits[:1]), lambda: forward(v, logits[:, :1]), lambda: forward(v[0], logits),
    lambda: forward(v, logits.flatten()), lambda: forward(v[..., :48].contiguous(), logits),
    lambda: forward(v, torch.randn(2, 2, 3, 0, 9, 9)), lambda: backward(torch.ones(1), v, logits),
    lambda: backward(torch.ones(1).expand_as(v), v, logits), lambda: backward(v.bfloat16(), v, logits),
):
    try:
        call()
    except ValueError as error:
        assert 'expected' in str(error)
    else:
        raise AssertionError('taken')
for sizes in (dict(batch=0), dict(height=0), dict(heads=0), {}):
    v, logits = (x.requires_grad_() for x in inputs(**sizes))
    out = forward(v, logits)
    grads = torch.autograd.grad(out.sum(), (v, logits))
    assert [x.shape for x in (out, *grads)] == [v.shape, v.shape, logits.shape]
torch.library.opcheck(backward, (torch.randn_like(v), v.detach(), logits.detach()))
"""


def test_raw_operators_take_only_what_the_kernel_reads() -> None:
    """In a process of its own, as what is wrong there ends it or corrupts its memory."""
    code = f'from mmseg_volo.ops import outlook_cpu\n{HOSTILE}'
    run = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]


def test_exporters_see_torchs_operators() -> None:
    v, logits, _ = inputs((4, 6), heads=1, batch=1)

    class Operator(torch.nn.Module):
        def forward(self, v: Tensor, logits: Tensor) -> Tensor:
            return outlook(v, logits)

    exported = torch.export.export(Operator(), (v, logits))
    assert 'mmseg_volo' not in str(exported.graph) and 'softmax' in str(exported.graph)
    torch.testing.assert_close(exported.module()(v, logits), outlook(v, logits))


def test_the_environment_turns_it_off() -> None:
    code = 'import sys; from mmseg_volo.ops import outlook_cpu; sys.exit(outlook_cpu.LIBRARY is not None)'
    for value, status in (('0', 0), ('1', 1)):
        env = {**os.environ, 'MMSEG_VOLO_CPU_KERNEL': value}
        assert subprocess.run([sys.executable, '-c', code], env=env).returncode == status


def test_tensors_without_their_memory_are_refused() -> None:
    v, logits, grad = (x.detach() for x in inputs((4, 4)))
    freed = torch.empty_like(v)
    freed.untyped_storage().resize_(0)
    for call in (lambda: kernel.outlook(freed, logits), lambda: kernel.outlook_backward(freed, v, logits)):
        with pytest.raises(ValueError, match='memory was freed'):
            call()
    for call in (
        lambda: kernel.outlook(v, logits.to('meta')),
        lambda: kernel.outlook_backward(grad, v.to('meta'), logits),
    ):
        with pytest.raises(ValueError, match='all tensors on one device'):
            call()
    nothing = torch.zeros(2, 4, 4, 0)
    assert not kernel.outlook_backward(nothing, nothing, logits)[1].any()
