"""Outlook attention (VOLO, arXiv 2106.13112, section 3.1), without unfold and fold.

Three ways to the same numbers, chosen by `outlook`: Triton kernels on NVIDIA GPUs (`mmseg_volo/ops`); on CPUs a few
rows of windows at a time, which stay in the cache, with a backward pass that makes the windows anew instead of keeping
them; and one formula of torch's operators for everything else, which is also what exporters see, and torch.compile
where there is no kernel.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from mmseg_volo.ops import outlook as kernels

KERNEL = 3  # every published VOLO uses kernel 3, stride 2, padding 1
WINDOW = KERNEL * KERNEL
BAND_BYTES = 2**21  # of the windows that a CPU handles at once: some of its cache


def outlook(v: Tensor, logits: Tensor) -> Tensor:
    """Each 3x3 window, at stride 2 and padding 1, mixed by the softmax of its own logits and added back onto the map.

    Args:
        v: (B, H, W, C).
        logits: (B, ceil(H / 2), ceil(W / 2), heads, 9, 9), the last axis over what is mixed; not scaled yet.

    Returns:
        (B, H, W, C).
    """
    if kernels.usable(v, logits):
        return kernels.outlook(v.contiguous(), logits.contiguous())[0]
    if v.device.type != 'cpu' or torch.compiler.is_compiling() or torch.jit.is_tracing():
        attn = (logits * kernels.scale(v, logits)).softmax(dim=-1)
        mixed = attn @ _by_head(gather_windows(v), logits.shape[3])
        mixed = mixed.transpose(3, 4).flatten(4).unflatten(3, (KERNEL, KERNEL))
        return scatter_windows(mixed, *v.shape[1:3])
    if torch.is_grad_enabled() and (v.requires_grad or logits.requires_grad):
        return _Banded.apply(v, logits)
    return _outlook_bands(v, logits, None)


def gather_windows(v: Tensor, first: int = 0, last: int | None = None) -> Tensor:
    """The 3x3 windows of stride 2 and padding 1: what `F.unfold` gives, kept channels-last.

    Args:
        v: (B, H, W, C).
        first, last: rows of windows, all of them by default.

    Returns:
        (B, rows, ceil(W / 2), C, 3, 3), a view of the padded map; zeros outside the map.
    """
    height, width = v.shape[1:3]
    last = -(-height // 2) if last is None else last
    v = v[:, max(2 * first - 1, 0) : 2 * last]
    v = F.pad(v, (0, 0, 1, width % 2, int(first == 0), max(2 * last - height, 0)))
    return v.unfold(1, KERNEL, 2).unfold(2, KERNEL, 2)


def scatter_windows(x: Tensor, height: int, width: int) -> Tensor:
    """Adds overlapping windows back onto the map: the adjoint of `gather_windows`, what `F.fold` gives.

    Along one axis a pixel of even index lies in one window (its centre), one of odd index in two (the last tap of
    window i and the first of window i + 1). So each axis is a shifted addition and an interleaving: no Col2Im, no
    in-place writes.

    Args:
        x: (B, h, w, 3, 3, C), windows at stride 2.
        height, width: size of the map; h = ceil(height / 2), w = ceil(width / 2).

    Returns:
        (B, height, width, C).
    """
    for dim, size in ((1, height), (2, width)):
        first, centre, last = x.unbind(3)  # taps along this axis: (B, h, w, [3,] C)
        beyond = torch.zeros_like(first.narrow(dim, 0, 1))
        following = torch.cat([first.narrow(dim, 1, first.shape[dim] - 1), beyond], dim)
        x = torch.stack([centre, last + following], dim + 1).flatten(dim, dim + 1).narrow(dim, 0, size)
    return x


def _by_head(windows: Tensor, heads: int) -> Tensor:
    """(B, h, w, C, 3, 3) -> (B, h, w, heads, 9, head_dim), a copy."""
    return windows.unflatten(3, (heads, -1)).permute(0, 1, 2, 3, 5, 6, 4).flatten(4, 5)


def _outlook_bands(v: Tensor, logits: Tensor, keep: list[Tensor] | None) -> Tensor:
    """Forward over bands of rows; appends their attention to `keep`, if any."""
    out = torch.zeros_like(v)
    for first, last in _bands(v):
        part = logits[:, first:last]
        # along the first axis a softmax is several times as fast as along a last one of length 9
        columns = part.reshape(-1, WINDOW).t()
        attn = torch.mul(columns, kernels.scale(v, logits), out=columns.new_empty(columns.shape)).softmax(0)
        attn = attn.unflatten(1, (-1, WINDOW)).permute(1, 2, 0)  # (B * rows * w * heads, 9, 9)
        if keep is not None:
            attn = attn.contiguous()
            keep.append(attn)
        windows = _by_head(gather_windows(v, first, last), logits.shape[3])
        _add_windows(out, torch.bmm(attn, windows.flatten(0, 3)).view_as(windows), first)
    return out


class _Banded(torch.autograd.Function):
    """`outlook` over bands of rows. For the backward pass the softmax is kept, the windows are not."""

    @staticmethod
    def forward(ctx, v: Tensor, logits: Tensor) -> Tensor:  # noqa: ANN001
        kept: list[Tensor] = []
        out = _outlook_bands(v, logits, kept)
        ctx.save_for_backward(v, *kept)
        ctx.logits_shape = logits.shape
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ANN001
        v, *kept = ctx.saved_tensors
        grad_v, grad_logits = torch.zeros_like(v), v.new_empty(ctx.logits_shape)
        for (first, last), attn in zip(_bands(v), kept, strict=True):
            shape = grad_logits[:, first:last].shape
            windows, grads = (_by_head(gather_windows(x, first, last), shape[3]).flatten(0, 3) for x in (v, grad))
            grad_attn = torch.bmm(grads, windows.mT).mul_(attn)
            grad_attn.addcmul_(attn, grad_attn.sum(-1, keepdim=True), value=-1)  # of the softmax
            torch.mul(grad_attn.view(shape), kernels.scale(v, grad_logits), out=grad_logits[:, first:last])
            _add_windows(grad_v, torch.bmm(attn.mT, grads).view(*shape[:5], -1), first)
        return grad_v, grad_logits


def _bands(v: Tensor) -> Iterator[tuple[int, int]]:
    """First and last (exclusive) row of windows of each band."""
    batch, height, width, dim = v.shape
    rows = max(1, BAND_BYTES // (batch * -(-width // 2) * WINDOW * dim * v.element_size()))
    total = -(-height // 2)
    for first in range(0, total, rows):
        yield first, min(first + rows, total)


def _add_windows(out: Tensor, mixed: Tensor, first: int) -> None:
    """Adds windows (B, rows, w, heads, 9, head_dim), from row `first` on, onto the map (B, H, W, C) in place."""
    height, width = out.shape[1:3]
    rows, columns, heads = mixed.shape[1:4]
    out = out.unflatten(3, (heads, -1))
    for tap in range(WINDOW):
        i, y = _inside(tap // KERNEL, first, first + rows, height)
        j, x = _inside(tap % KERNEL, 0, columns, width)
        out[:, y, x].add_(mixed[:, i, j, :, tap])


def _inside(tap: int, first: int, last: int, size: int) -> tuple[slice, slice]:
    """Of the windows first..last-1 along one axis those whose tap lies on the map, and where it lies."""
    begin = max(first, 1) if tap == 0 else first
    end = last if 2 * last + tap - 3 < size else last - 1
    return slice(begin - first, max(begin, end) - first), slice(2 * begin + tap - 1, max(2 * end + tap - 2, 0), 2)


class OutlookAttention(nn.Module):
    """Each 3x3 window is mixed by weights computed from its centre alone.

    Parameters are named as in sail-sg/volo and timm (`v`, `attn`, `proj`), so their weights fit.
    """

    def __init__(self, dim: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.v = nn.Linear(dim, dim, bias=False)
        self.attn = nn.Linear(dim, WINDOW * WINDOW * num_heads)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:  # (B, H, W, C) -> same
        centre = F.avg_pool2d(x.permute(0, 3, 1, 2), 2, ceil_mode=True).permute(0, 2, 3, 1)
        logits = self.attn(centre).unflatten(3, (self.num_heads, WINDOW, WINDOW))
        return self.proj(outlook(self.v(x), logits))
