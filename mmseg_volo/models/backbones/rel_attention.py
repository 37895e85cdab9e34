"""Relative attention (CoAtNet, arXiv 2106.04803, equation 3 and appendix A.1) without the matrix of all its biases.

The bias of a query at (i, j) and a key at (k, l) is table[i - k + H - 1, j - l + W - 1], a table per head. Written out
for all pairs in fp32 that is 805 MB for 12 heads at 64x64 tokens (stage 3 of CoAtNet-0 at 1024x1024), and several times
that in training. Here at most `MAX_BIAS_BYTES` of it exist at once: attention runs over a few rows of queries at a
time, and in training the backward pass writes out the biases of these rows anew. Peak of what one attention of that
stage allocates on a CPU (torch 2.15's profiler, fp32, one image), with the bound and without:

    forward 82 MB and 825 MB, forward and backward 249 MB and 2642 MB

A CPU's backward pass holds the softmax of a piece too, and its gradient, of every image of the batch. Biases that fit
in one piece are kept for the backward pass, so training may hold as much as the bound for each block; `with_cp` does
not.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

MAX_BIAS_BYTES = 64 * 2**20  # of all heads together; one image's, as the images of a batch share their biases


def relative_attention(q: Tensor, k: Tensor, v: Tensor, table: Tensor) -> Tensor:
    """Softmax attention over all positions of a map, plus a bias by the offset of query and key.

    Args:
        q, k, v: (B, heads, H, W, head_dim).
        table: (heads, 2H - 1, 2W - 1), entry [i - k + H - 1, j - l + W - 1] for query (i, j) and key (k, l).

    Returns:
        (B, heads, H, W, head_dim).
    """
    height, width = q.shape[2:4]
    # in reverse order key (k', l') stands at (H - 1 - k', W - 1 - l') and its bias at table[i + k', j + l']: biases are
    # sliding windows of the table, a view of it that needs no indices
    k, v = (t.flatten(2, 3).flip(2) for t in (k, v))
    table = table.to(q.dtype)
    queries = max(1, MAX_BIAS_BYTES // (len(table) * height * width * table.element_size()))
    rows, columns = min(height, max(1, queries // width)), min(width, queries)
    if rows == height and columns == width:
        return _attend(q, k, v, table)
    recompute = torch.is_grad_enabled() and any(t.requires_grad for t in (q, k, v, table))
    done = []
    for i, strip in enumerate(q.split(rows, 2)):
        pieces = []
        for j, piece in enumerate(strip.split(columns, 3)):
            top, left = i * rows, j * columns
            window = table[:, top : top + piece.shape[2] + height - 1, left : left + piece.shape[3] + width - 1]
            if recompute:
                out = checkpoint(_attend, piece, k, v, window, use_reentrant=False, preserve_rng_state=False)
            else:
                out = _attend(piece, k, v, window)
            pieces.append(out)
        done.append(torch.cat(pieces, 3))
    return torch.cat(done, 2)


def _attend(q: Tensor, k: Tensor, v: Tensor, window: Tensor) -> Tensor:
    """(B, heads, h, w, d), twice (B, heads, H * W, d) in reverse order, (heads, h + H - 1, w + W - 1) -> as q."""
    rows, columns = q.shape[2:4]
    bias = window.unfold(1, window.shape[1] - rows + 1, 1).unfold(2, window.shape[2] - columns + 1, 1)
    bias = bias.flatten(3).flatten(1, 2)  # (heads, h * w, H * W): only here is anything copied
    out = F.scaled_dot_product_attention(q.flatten(2, 3), k, v, attn_mask=bias[None])
    return out.unflatten(2, (rows, columns))


def ratio(old: int, new: int) -> float:
    """Of the geometric spacing that spreads `old` entries of a table, from its centre outwards, over `new` distances.

    BEiT's bisection (microsoft/unilm, beit/run_class_finetuning.py) as in timm, its bounds of 1.01 and 1.5 included:
    far beyond the trained size the table ends before the map does, and for a smaller map it is cut rather than shrunk.
    """
    low, high, middle = 1.01, 1.5, 1.01
    new = len([0] * new)  # for torch.compile a plain number: bisecting with a symbolic one makes hundreds of guards
    while high - low > 1e-6:
        middle = (low + high) / 2
        if (1 - middle**old) / (1 - middle) > new:
            high = middle
        else:
            low = middle
    return middle


def geometric_weights(old: int, new: int, like: Tensor) -> Tensor:
    """What a table of 2 old + 1 distances gives each of the 2 new + 1 distances: (2 new + 1, 2 old + 1).

    Entry k from the centre stands at distance 1 + q + ... + q^(k - 1); between two entries the weights are linear, and
    beyond the last one it holds. Of `like` are the device and the type, float32 at least.
    """
    q = ratio(old, new)
    kind = dict(device=like.device, dtype=torch.promote_types(like.dtype, torch.float32))
    distance = torch.arange(-new, new + 1, **kind)
    far = distance.abs()
    log_q = math.log(q)
    entry = (far * (q - 1)).log1p().div(log_q).floor()  # the last one that is no further
    rest = far - (entry * log_q).expm1() / (q - 1)
    place = (entry + rest * (entry * -log_q).exp()).clamp(max=old) * distance.sign()
    return (1 - (place[:, None] - torch.arange(-old, old + 1, **kind)).abs()).relu()


class RelPosBias(nn.Module):
    """A trained table of biases, resized to the input in every forward.

    At the trained size all rules agree. Paper and timm resize once, before finetuning at a larger size.

    Args:
        grid: side in tokens of the map that it was trained on.
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
        """(heads, 2 height - 1, 2 width - 1)."""
        table = self.relative_position_bias_table.T.unflatten(1, (self.side, self.side))
        size = (2 * height - 1, 2 * width - 1)
        if size == (self.side, self.side):
            return table
        if self.resize == 'bilinear':
            return F.interpolate(table[None], size=size, mode='bilinear', align_corners=False)[0]
        # autocast would round the table, and meta knows none
        with torch.autocast('cpu' if table.is_meta else table.device.type, enabled=False):
            rows, columns = (geometric_weights(self.side // 2, n - 1, table) for n in (height, width))
            return (rows @ table.to(rows.dtype) @ columns.T).to(table.dtype)


class RelPosMlp(nn.Module):
    """Biases as a function of the offset (timm's `RelPosMlp`, mode 'cr', after Swin V2, arXiv 2111.09883).

    Offsets are in tokens, on a logarithmic scale, and not divided by the size of the map: at another size than the
    trained one the function is evaluated further out, as in timm, whose 'cr' ignores `pretrained_window_size`. The
    dropout is timm's.
    """

    def __init__(self, hidden_dim: int, num_heads: int):
        super().__init__()
        self.mlp = nn.ModuleDict({'fc1': nn.Linear(2, hidden_dim), 'fc2': nn.Linear(hidden_dim, num_heads)})

    def forward(self, height: int, width: int) -> Tensor:
        weight = self.mlp['fc1'].weight
        dy, dx = (torch.arange(1 - n, n, device=weight.device, dtype=weight.dtype) for n in (height, width))
        offsets = torch.stack(torch.meshgrid(dy, dx, indexing='ij'), -1)
        offsets = offsets.sign() * offsets.abs().log1p()
        hidden = F.dropout(F.relu(self.mlp['fc1'](offsets)), 0.125, self.training)
        return self.mlp['fc2'](hidden).permute(2, 0, 1)
