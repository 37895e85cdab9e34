"""Compute relative attention (CoAtNet, arXiv 2106.04803, equation 3 and appendix A.1) without a matrix of all biases.

The bias of a query at (i, j) and a key at (k, l) is table[i - k + H - 1, j - l + W - 1], a table per head. Written out
for all pairs in fp32 that is 805 MB for 12 heads at 64x64 tokens (stage 3 of CoAtNet-0 at 1024x1024), and several times
that in training. Here at most `MAX_BIAS_BYTES` of it exist at once: attention runs over a few rows of queries at a
time, and in training the backward pass writes out the biases of these rows anew. Peak memory that one attention of that
stage allocates on a CPU (torch 2.15's profiler, fp32, one image), with the bound and without:

    forward 82 MB and 825 MB, forward and backward 249 MB and 2642 MB

On a CPU the backward pass also holds the softmax of a piece, and its gradient, for every image of the batch. Biases
that fit in one piece are kept for the backward pass: training holds up to the bound per block, unless `with_cp` is on.
"""

from __future__ import annotations

import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

MAX_BIAS_BYTES = 64 * 2**20  # of all heads together; the images of a batch share their biases


def relative_attention(q: Tensor, k: Tensor, v: Tensor, table: Tensor) -> Tensor:
    """Compute softmax attention over all positions of a map, with a bias by the offset of query and key.

    Args:
        q, k, v: (B, heads, H, W, head_dim).
        table: (heads, 2H - 1, 2W - 1), entry [i - k + H - 1, j - l + W - 1] for query (i, j) and key (k, l).

    Returns:
        (B, heads, H, W, head_dim).
    """
    height, width = q.shape[2:4]
    # in reverse order, key (k', l') is the one at (H - 1 - k', W - 1 - l'), and its bias table[i + k', j + l']: biases
    # are sliding windows of the table, a view that needs no indices
    k, v = (t.flatten(2, 3).flip(2) for t in (k, v))
    table = table.to(q.dtype)
    queries = max(1, MAX_BIAS_BYTES // (len(table) * height * width * table.element_size()))
    rows, columns = min(height, max(1, queries // width)), min(width, queries)
    if rows == height and columns == width:
        return _attend(q, k, v, table)
    recompute = torch.is_grad_enabled() and any(t.requires_grad for t in (q, k, v, table))
    strips = []
    for i, strip in enumerate(q.split(rows, 2)):
        pieces = []
        for j, piece in enumerate(strip.split(columns, 3)):
            top, left = i * rows, j * columns
            window = table[:, top : top + piece.shape[2] + height - 1, left : left + piece.shape[3] + width - 1]
            if recompute:
                out: Tensor = checkpoint(_attend, piece, k, v, window, use_reentrant=False, preserve_rng_state=False)
            else:
                out = _attend(piece, k, v, window)
            pieces.append(out)
        strips.append(torch.cat(pieces, 3))
    return torch.cat(strips, 2)


def _attend(q: Tensor, k: Tensor, v: Tensor, window: Tensor) -> Tensor:
    """Attend from q (B, heads, h, w, d) to k, v (B, heads, H * W, d) in reverse order; window (heads, h+H-1, w+W-1)."""
    rows, columns = q.shape[2:4]
    bias = window.unfold(1, window.shape[1] - rows + 1, 1).unfold(2, window.shape[2] - columns + 1, 1)
    bias = bias.flatten(3).flatten(1, 2)  # (heads, h * w, H * W), the only copy
    out = F.scaled_dot_product_attention(q.flatten(2, 3), k, v, attn_mask=bias[None])
    result: Tensor = out.unflatten(2, (rows, columns))
    return result


def ratio(old: int, new: int) -> float:
    """Find the ratio of the geometric spacing that spreads `old` entries from the centre over `new` distances.

    BEiT's bisection (microsoft/unilm, beit/run_class_finetuning.py) as in timm, with its bounds of 1.01 and 1.5: far
    beyond the trained size the table ends before the map does, and for a smaller map it is cut rather than shrunk.
    """
    low, high, middle = 1.01, 1.5, 1.01
    new = len([0] * new)  # a plain number for torch.compile: bisecting a symbolic one makes hundreds of guards
    while high - low > 1e-6:
        middle = (low + high) / 2
        if (1 - middle**old) / (1 - middle) > new:
            high = middle
        else:
            low = middle
    return middle


def geometric_weights(old: int, new: int, like: Tensor) -> Tensor:
    """Return the weights that resize a table of 2 old + 1 distances to 2 new + 1: (2 new + 1, 2 old + 1).

    Entry k from the centre is at distance 1 + q + ... + q^(k - 1); between two entries weights are linear, beyond the
    last one it is repeated. Device and dtype are those of `like`, float32 at least.
    """
    q = ratio(old, new)
    device, dtype = like.device, torch.promote_types(like.dtype, torch.float32)
    distance = torch.arange(-new, new + 1, device=device, dtype=dtype)
    far = distance.abs()
    log_q = math.log(q)
    entry = (far * (q - 1)).log1p().div(log_q).floor()  # the last entry that is no further away
    rest = far - (entry * log_q).expm1() / (q - 1)
    position = (entry + rest * (entry * -log_q).exp()).clamp(max=old) * distance.sign()
    entries = torch.arange(-old, old + 1, device=device, dtype=dtype)
    return (1 - (position[:, None] - entries).abs()).relu()


class RelPosBias(nn.Module):
    """A trained table of biases, resized to the input in every forward pass.

    At the trained size all rules agree. The paper and timm resize once, before fine-tuning at a larger size.

    Args:
        grid: side in tokens of the map it was trained on.
        resize: 'bilinear' (appendix A.1 of the paper), or 'geometric' as timm resizes its weights (BEiT's rule, linear
            as in `resize_rel_pos_bias_table` of timm/layers/pos_embed_rel.py without scipy): neighbours keep their
            biases, and the further two tokens are apart, the more the table is stretched.
    """

    def __init__(self, grid: int, num_heads: int, resize: str = 'bilinear'):
        super().__init__()
        self.side = 2 * grid - 1
        self.resize = resize
        self.relative_position_bias_table = nn.Parameter(torch.empty(self.side**2, num_heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)

    def forward(self, height: int, width: int) -> Tensor:
        """Return biases (heads, 2 height - 1, 2 width - 1) by offset."""
        table: Tensor = self.relative_position_bias_table.T.unflatten(1, (self.side, self.side))
        size = (2 * height - 1, 2 * width - 1)
        if size == (self.side, self.side):
            return table
        if self.resize == 'bilinear':
            return F.interpolate(table[None], size=size, mode='bilinear', align_corners=False)[0]
        # autocast would round the table, and there is none on meta
        with torch.autocast('cpu' if table.is_meta else table.device.type, enabled=False):
            rows, columns = (geometric_weights(self.side // 2, n - 1, table) for n in (height, width))
            resized: Tensor = (rows @ table.to(rows.dtype) @ columns.T).to(table.dtype)
            return resized


class RelPosMlp(nn.Module):
    """Computes biases from offsets by an MLP (timm's `RelPosMlp`, mode 'cr', after Swin V2, arXiv 2111.09883).

    Offsets are in tokens, on a logarithmic scale, and not divided by the size of the map: for maps larger than the
    trained one the MLP extrapolates, as in timm, whose 'cr' ignores `pretrained_window_size`. The dropout is timm's.
    """

    def __init__(self, hidden_dim: int, num_heads: int):
        super().__init__()
        self.mlp = nn.ModuleDict({'fc1': nn.Linear(2, hidden_dim), 'fc2': nn.Linear(hidden_dim, num_heads)})

    def forward(self, height: int, width: int) -> Tensor:
        weight = cast('nn.Linear', self.mlp['fc1']).weight
        dy, dx = (torch.arange(1 - n, n, device=weight.device, dtype=weight.dtype) for n in (height, width))
        offsets = torch.stack(torch.meshgrid(dy, dx, indexing='ij'), -1)
        offsets = offsets.sign() * offsets.abs().log1p()
        hidden = F.dropout(F.relu(self.mlp['fc1'](offsets)), 0.125, self.training)
        biases: Tensor = self.mlp['fc2'](hidden).permute(2, 0, 1)
        return biases
