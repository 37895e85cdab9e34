"""Register outlook attention on CPUs as operators of torch, computed by `outlook_cpu.c`.

setup.py compiles that file if there is a C compiler. `MMSEG_VOLO_CPU_KERNEL=0` in the environment turns it off.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
from typing import Any

import torch
from torch import Tensor

from mmseg_volo.ops.checks import check_alike, check_inputs

SWITCH = 'MMSEG_VOLO_CPU_KERNEL'
HEAD_DIM = 32  # of every published VOLO
DTYPES = (torch.float32, torch.bfloat16)


def _library() -> ctypes.CDLL | None:
    """Load the compiled file, if there is one that loads; it takes OpenMP's functions from torch."""
    spec = importlib.util.find_spec('mmseg_volo.ops._outlook_cpu')
    if spec is None or os.environ.get(SWITCH, '1') == '0':
        return None
    try:
        library = ctypes.CDLL(spec.origin)
    except OSError:
        return None
    tensors, sizes = [ctypes.c_void_p] * 5, [ctypes.c_int64] * 4
    library.outlook.argtypes = [*tensors, *sizes, ctypes.c_int, ctypes.c_float, ctypes.c_int]
    return library


LIBRARY = _library()


def usable(v: Tensor, logits: Tensor) -> bool:
    """Whether the kernel can be used; shapes as in `ops.outlook_attention.outlook`. Exports do not use it."""
    exporting = getattr(torch.compiler, 'is_exporting', torch.compiler.is_compiling)  # since torch 2.7
    return (
        v.device.type == 'cpu'
        and LIBRARY is not None
        and v.dtype == logits.dtype
        and v.dtype in DTYPES
        and v.shape[3] == HEAD_DIM * logits.shape[3]
        and v.numel() > 0
        and not torch.jit.is_tracing()
        and not exporting()
    )


@torch.library.custom_op('mmseg_volo::outlook_cpu', mutates_args=(), schema='(Tensor v, Tensor logits) -> Tensor')
def outlook(v: Tensor, logits: Tensor) -> Tensor:
    """Compute `ops.outlook_attention.outlook` of contiguous tensors of one of `DTYPES`, also empty; sums are float32.

    Raises:
        ValueError: the tensors are not of this kind.
    """
    _check(v, logits)
    out = torch.empty_like(v)
    _call(None, v, logits, out, None)
    return out


@outlook.register_fake
def _(v: Tensor, logits: Tensor) -> Tensor:
    _check_device(v, logits)
    return torch.empty_like(v)


@torch.library.custom_op(
    'mmseg_volo::outlook_cpu_backward',
    mutates_args=(),
    schema='(Tensor grad, Tensor v, Tensor logits) -> (Tensor, Tensor)',
)
def outlook_backward(grad: Tensor, v: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the gradients of `v` and `logits`; cannot be differentiated again.

    Raises:
        ValueError: `grad` differs from `v` in shape, dtype or device; or as `outlook`.
    """
    _check(v, logits)
    check_alike('grad', grad, v.shape, v.dtype, v)
    grad_v, grad_logits = torch.empty_like(v), torch.zeros_like(logits)  # logits may have elements where v has none
    _call(grad, v, logits, grad_v, grad_logits)
    return grad_v, grad_logits


@outlook_backward.register_fake
def _(grad: Tensor, v: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
    _check_device(grad, v, logits)
    return torch.empty_like(v), torch.empty_like(logits)


def _keep(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _differentiate(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
    return outlook_backward(grad.contiguous(), *ctx.saved_tensors)


outlook.register_autograd(_differentiate, setup_context=_keep)


def _check_device(*tensors: Tensor) -> None:
    """Check that all tensors are on one device: torch calls the fake operator if only one of them is on meta."""
    if len({tensor.device for tensor in tensors}) > 1:
        raise ValueError(f'expected all tensors on one device, got {", ".join(str(t.device) for t in tensors)}')


def _check(v: Tensor, logits: Tensor) -> None:
    if LIBRARY is None:
        raise ValueError(f'the kernel is not compiled, or turned off by {SWITCH}')
    if v.device.type != 'cpu':
        raise ValueError(f'expected v on the CPU, got {v.device}')
    check_inputs(v, logits, DTYPES, range(HEAD_DIM, HEAD_DIM + 1))


def _call(grad: Tensor | None, v: Tensor, logits: Tensor, out: Tensor, grad_logits: Tensor | None) -> None:
    if not v.numel():
        return
    assert LIBRARY is not None  # `_check` has raised
    batch, height, width, dim = v.shape
    pointers = [None if t is None else t.data_ptr() for t in (grad, v, logits, out, grad_logits)]
    sizes = batch, height, width, dim // HEAD_DIM
    bf16, threads = v.dtype == torch.bfloat16, torch.get_num_threads()
    if LIBRARY.outlook(*pointers, *sizes, bf16, HEAD_DIM**-0.5, threads):
        raise MemoryError(f'not enough memory for the attention of a map of {height}x{width} pixels and {dim} channels')
