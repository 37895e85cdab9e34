"""Register outlook attention as operators of torch, `mmseg_volo::outlook` and its gradient, with Triton kernels.

Operators are opaque to torch.compile, which calls them without a graph break. Triton is imported when the first map is
computed. `MMSEG_VOLO_TRITON=0` in the environment turns them off.
"""

import os
from importlib.metadata import PackageNotFoundError, version
from math import prod
from typing import Any

import torch
from torch import Tensor

from mmseg_volo.ops.checks import check_alike, check_inputs

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
MAX_HEAD_DIM = 128
MAX_INDEX = 2**31  # the kernels index one image with 32 bits
MAX_BATCH = 2**16  # the batch is the second axis of CUDA's grid


def _has_triton() -> bool:
    """Whether Triton is 3.6 or later, the oldest version these kernels were compiled with."""
    if os.environ.get('MMSEG_VOLO_TRITON', '1') == '0' or torch.version.hip is not None:
        return False
    try:
        return tuple(map(int, version('triton').split('.')[:2])) >= (3, 6)
    except (PackageNotFoundError, ValueError):
        return False


HAS_TRITON = _has_triton()


def usable(v: Tensor, logits: Tensor) -> bool:
    """Whether the kernels can be used; shapes as in `ops.outlook_attention.outlook`."""
    head_dim = v.shape[3] // logits.shape[3]
    return (
        v.is_cuda
        and HAS_TRITON
        and v.dtype == logits.dtype
        and v.dtype in DTYPES
        and head_dim <= MAX_HEAD_DIM
        and v.shape[0] < MAX_BATCH
        and max(prod(v.shape[1:]), prod(logits.shape[1:])) < MAX_INDEX
    )


def scale(v: Tensor, logits: Tensor) -> float:
    """Return the factor of the logits, head_dim^-0.5."""
    return (v.shape[3] // logits.shape[3]) ** -0.5


@torch.library.custom_op('mmseg_volo::outlook', mutates_args=(), schema='(Tensor v, Tensor logits) -> (Tensor, Tensor)')
def outlook(v: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
    """Compute `ops.outlook_attention.outlook` of contiguous tensors of one of `DTYPES`.

    Returns:
        The map (B, H, W, C), and for the backward pass log2 of the sum of exponentials of each softmax, in float32:
        (B, heads, 9, h, w). Those of taps outside the map are not written.

    Raises:
        ValueError: the tensors are not of this kind.
    """
    _check(v, logits)
    if not v.numel():
        return torch.empty_like(v), _sums(v, logits)
    from mmseg_volo.ops import outlook_triton

    return outlook_triton.forward(v, logits, scale(v, logits))


@outlook.register_fake
def _(v: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(v), _sums(v, logits)


@torch.library.custom_op(
    'mmseg_volo::outlook_backward',
    mutates_args=(),
    schema='(Tensor grad, Tensor v, Tensor logits, Tensor lse) -> (Tensor, Tensor)',
)
def outlook_backward(grad: Tensor, v: Tensor, logits: Tensor, lse: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the gradients of `v` and `logits`; cannot be differentiated again.

    Raises:
        ValueError: the tensors are not those of the forward pass.
    """
    _check(v, logits)
    check_alike('grad', grad, v.shape, v.dtype, v)
    check_alike('lse', lse, _sums(v, logits).shape, torch.float32, v)
    if not v.numel():
        return torch.empty_like(v), torch.empty_like(logits)
    from mmseg_volo.ops import outlook_triton

    return outlook_triton.backward(grad, v, logits, lse, scale(v, logits))


@outlook_backward.register_fake
def _(grad: Tensor, v: Tensor, logits: Tensor, lse: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(v), torch.empty_like(logits)


def _sums(v: Tensor, logits: Tensor) -> Tensor:
    """Allocate the sums that the forward pass keeps for the backward pass."""
    batch, h, w, heads, taps = logits.shape[:5]
    return v.new_empty((batch, heads, taps, h, w), dtype=torch.float32)


def _check(v: Tensor, logits: Tensor) -> None:
    if not (v.is_cuda and HAS_TRITON) and os.environ.get('TRITON_INTERPRET') != '1':
        raise ValueError(f'expected v on an NVIDIA GPU, with Triton 3.6 or later installed, got it on {v.device}')
    check_inputs(v, logits, DTYPES, range(1, MAX_HEAD_DIM + 1))
    if len(v) >= MAX_BATCH or max(prod(v.shape[1:]), prod(logits.shape[1:])) >= MAX_INDEX:
        raise ValueError(
            f'expected fewer than {MAX_BATCH} images of fewer than {MAX_INDEX} values, got {len(v)} images'
        )


def _keep(ctx: Any, inputs: tuple[Tensor, Tensor], output: tuple[Tensor, Tensor]) -> None:
    ctx.set_materialize_grads(False)  # the sums have no gradient
    ctx.save_for_backward(*inputs, output[1])


def _differentiate(ctx: Any, grad: Tensor, _: None) -> tuple[Tensor, Tensor]:
    return outlook_backward(grad.contiguous(), *ctx.saved_tensors)


outlook.register_autograd(_differentiate, setup_context=_keep)
