"""Outlook attention by the formula of the official code: unfold, product, fold."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def official(v: Tensor, logits: Tensor) -> Tensor:
    """sail-sg/volo, models/volo.py, the middle of OutlookAttention.forward, with kernel 3, stride 2, padding 1.

    Args, result: as of `mmseg_volo.ops.outlook_attention.outlook`.
    """
    batch, height, width, dim = v.shape
    h, w, heads = logits.shape[1:4]
    windows = F.unfold(v.permute(0, 3, 1, 2), 3, padding=1, stride=2)
    windows = windows.reshape(batch, heads, dim // heads, 9, h * w).permute(0, 1, 4, 3, 2)
    attn = logits.reshape(batch, h * w, heads, 9, 9).permute(0, 2, 1, 3, 4)
    attn = (attn * (dim // heads) ** -0.5).softmax(-1)
    out = (attn @ windows).permute(0, 1, 4, 3, 2).reshape(batch, dim * 9, h * w)
    return F.fold(out, (height, width), 3, padding=1, stride=2).permute(0, 2, 3, 1)
