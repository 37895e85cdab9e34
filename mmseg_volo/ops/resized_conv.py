"""Convolve enlarged maps in a fraction of the multiplications.

Heads enlarge coarse maps to the finest one's size, concatenate them and convolve. Enlarging is linear and the same for
all channels, so channels can be mixed first, at the coarse size: conv(up(x)) = sum over taps of shift(up(mix(x))).
Shift and enlarging together are one matrix per axis. For a 3x3 convolution of a map enlarged twofold that is a quarter
of the products, for fourfold a sixteenth, and nothing is concatenated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def conv_of_resized(
    maps: Sequence[Tensor],
    weight: Tensor,
    size: Sequence[int],
    align_corners: bool,
    conv2d: Callable[..., Tensor] = F.conv2d,
    faster: float = 1.0,
) -> Tensor:
    """Compute `F.conv2d(torch.cat([resize(m, size) for m in maps], 1), weight, padding='same')`, up to rounding.

    Args:
        maps: (B, C_i, h_i, w_i) each.
        weight: (out, sum of C_i, k, k), k odd.
        size: (H, W) to which all maps are resized, bilinearly.
        align_corners: as in `F.interpolate`.
        conv2d: convolves maps for which mixing first is not faster.
        faster: how many times faster `conv2d` is than its number of products suggests.

    Returns:
        (B, out, H, W).
    """
    total: Tensor | None = None
    for x, kernel in zip(maps, weight.split([m.shape[1] for m in maps], dim=1), strict=True):
        if _mixing_pays(x, kernel, size, faster):
            y = _mixed_first(x, kernel, size, align_corners)
        else:
            if x.shape[2:] != tuple(size):
                x = F.interpolate(x, tuple(size), mode='bilinear', align_corners=align_corners)
            y = conv2d(x, kernel, padding=weight.shape[-1] // 2)
        total = y if total is None else total + y if torch.is_grad_enabled() else total.add_(y)
    assert total is not None  # there is at least one map
    return total


def _mixing_pays(x: Tensor, weight: Tensor, size: Sequence[int], faster: float) -> bool:
    (_, channels, taps, _), (h, w), (height, width) = weight.shape, x.shape[2:], size
    if taps == 1:
        return h * w < height * width
    direct = taps**2 * channels * height * width
    enlarging = taps * h * width * (taps * w + height)
    return taps**2 * channels * h * w + enlarging < direct / faster


def _mixed_first(x: Tensor, weight: Tensor, size: Sequence[int], align_corners: bool) -> Tensor:
    out, channels, taps, _ = weight.shape
    if taps == 1:
        return F.interpolate(F.conv2d(x, weight), tuple(size), mode='bilinear', align_corners=align_corners)
    batch, _, h, w = x.shape
    mixed = F.linear(x.permute(0, 2, 3, 1), weight.permute(3, 2, 0, 1).reshape(-1, channels))
    rows = _shifted(h, size[0], taps, align_corners, mixed)
    columns = _shifted(w, size[1], taps, align_corners, mixed)
    mixed = columns @ mixed.view(batch, h, w * taps, taps * out)  # (B, h, W, ky * out); frees the narrower one
    mixed = mixed.view(batch, h, size[1], taps, out).transpose(2, 3).reshape(batch, h * taps, size[1] * out)
    return (rows @ mixed).view(batch, *size, out).permute(0, 3, 1, 2)


def _shifted(source: int, target: int, taps: int, align_corners: bool, like: Tensor) -> Tensor:
    """Return the matrix that enlarges one axis from `source` to `target` positions and shifts by each tap.

    Returns:
        (target, source * taps), zeros beyond the ends, with the device and dtype of `like`.
    """
    identity = torch.eye(source, device=like.device, dtype=torch.promote_types(like.dtype, torch.float32))
    enlarged = F.interpolate(identity[None], target, mode='linear', align_corners=align_corners)[0]
    enlarged = F.pad(enlarged, (taps // 2, taps // 2))
    shifted = torch.stack([enlarged[:, tap : tap + target] for tap in range(taps)], 1)  # (source, taps, target)
    return shifted.flatten(0, 1).t().to(like.dtype)
