"""Compute outlook attention (VOLO, arXiv 2106.13112, section 3.1), without unfold and fold.

`outlook` chooses between kernels for NVIDIA GPUs and for CPUs (`outlook_triton.py`, `outlook_cpu.c`) and one formula of
torch's operators for everything else, exporters included.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mmseg_volo.ops import outlook_cpu as cpu
from mmseg_volo.ops import outlook_cuda as cuda

KERNEL = 3  # every published VOLO uses kernel 3, stride 2, padding 1
WINDOW = KERNEL * KERNEL


def outlook(v: Tensor, logits: Tensor) -> Tensor:
    """Mix each 3x3 window, at stride 2 and padding 1, by the softmax of its own logits, and add it back onto the map.

    Args:
        v: (B, H, W, C).
        logits: (B, ceil(H / 2), ceil(W / 2), heads, 9, 9), the last axis over the pixels that are mixed; not scaled.

    Returns:
        (B, H, W, C).
    """
    if cuda.usable(v, logits):
        return cuda.outlook(v.contiguous(), logits.contiguous())[0]
    if cpu.usable(v, logits):
        return cpu.outlook(v.contiguous(), logits.contiguous())
    attn = (logits * cuda.scale(v, logits)).softmax(dim=-1)
    mixed = attn @ gather_windows(v.unflatten(3, (logits.shape[3], -1)))
    mixed = mixed.transpose(3, 4).flatten(4).unflatten(3, (KERNEL, KERNEL))
    return scatter_windows(mixed, *v.shape[1:3])


def gather_windows(v: Tensor) -> Tensor:
    """Gather the 3x3 windows of stride 2 and padding 1, as `F.unfold` does, without Im2Col.

    Args:
        v: (B, H, W, heads, D).

    Returns:
        (B, ceil(H / 2), ceil(W / 2), heads, 9, D), zeros outside the map.
    """
    height, width = v.shape[1:3]
    v = F.pad(v, (0, 0, 0, 0, 1, width % 2, 1, height % 2))
    return torch.stack([v[:, i : i + height : 2, j : j + width : 2] for i in range(KERNEL) for j in range(KERNEL)], 4)


def scatter_windows(x: Tensor, height: int, width: int) -> Tensor:
    """Add overlapping windows back onto the map, as `F.fold` does: the adjoint of `gather_windows`.

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
