"""Convolutions of enlarged maps, in a fraction of the multiplications.

Heads enlarge coarse maps to the finest one's size, concatenate them and convolve. Enlarging is linear and the same for
every channel, so the channels can as well be mixed first, at the coarse size: conv(up(x)) = sum over taps of
shift(up(mix(x))). Shift and enlarging together are one matrix per axis. For a 3x3 convolution of a map enlarged
twofold that is a quarter of the products, for fourfold a sixteenth, and nothing is concatenated.
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
    """`F.conv2d(torch.cat([resize(m, size) for m in maps], 1), weight, padding='same')`, but for rounding.

    Args:
        maps: (B, C_i, h_i, w_i) each.
        weight: (out, sum of C_i, k, k), k odd.
        size: (H, W) that all are resized to, bilinearly.
        align_corners: of that resizing.
        conv2d: convolves what is not better mixed first.
        faster: how many times as fast as its products would say.

    Returns:
        (B, out, H, W).
    """
    found = None
    for x, part in zip(maps, weight.split([m.shape[1] for m in maps], dim=1), strict=True):
        if _mixing_pays(x, part, size, faster):
            y = _mixed_first(x, part, size, align_corners)
        else:
            if x.shape[2:] != tuple(size):
                x = F.interpolate(x, tuple(size), mode='bilinear', align_corners=align_corners)
            y = conv2d(x, part, padding=weight.shape[-1] // 2)
        found = y if found is None else found + y if torch.is_grad_enabled() else found.add_(y)
    return found


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
    """Enlarging along one axis from `source` to `target` positions and the shift of each tap, zeros beyond the ends.

    Returns:
        (target, source * taps), of the device and dtype of `like`.
    """
    identity = torch.eye(source, device=like.device, dtype=torch.promote_types(like.dtype, torch.float32))
    enlarged = F.interpolate(identity[None], target, mode='linear', align_corners=align_corners)[0]
    enlarged = F.pad(enlarged, (taps // 2, taps // 2))
    shifted = torch.stack([enlarged[:, tap : tap + target] for tap in range(taps)], 1)  # (source, taps, target)
    return shifted.flatten(0, 1).t().to(like.dtype)
