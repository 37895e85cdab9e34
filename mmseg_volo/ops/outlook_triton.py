# mypy: disable-error-code="assignment, misc"
# tuples that grow in unrolled loops are the kernels' arrays of registers
"""Compute outlook attention with Triton kernels, softmax included, without unfold, fold or atomic additions.

A program computes a tile of windows of one head. In the forward pass, and for the gradient of v, it writes the 2x2
pixels from each window's centre to its lower right. These lie in the window itself and in its neighbours to the right,
below and across, so their nine contributions are gathered and each pixel is written once. The gradient of the logits
is computed from the windows themselves. Taps, keys and neighbours are unrolled:

    tap or key     0 1 2        pixel   taken from (window, tap)
    of a window    3 4 5        0       (own, 4)
                   6 7 8        1       (own, 5) (right, 3)
                                2       (own, 7) (below, 1)
    pixels: 4 5 / 7 8           3       (own, 8) (right, 6) (below, 2) (across, 0)

Sums are in float32. Memory traffic is the tensors themselves, the borders of tiles, which are in the caches, and one
float32 per softmax that the forward pass keeps for the backward pass.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

LOG2E = 1.4426950408889634
TILE_W = 8
OPTIONS = dict(num_warps=4, enable_fp_fusion=True)  # the second one is Triton's default, but must be set


@triton.jit
def _position(heads, w, TILE_H: tl.constexpr, TILE_W: tl.constexpr):
    """Return the head, and row and column of each window of this program's tile."""
    program = tl.program_id(0)
    tile, columns = program // heads, tl.cdiv(w, TILE_W)
    n = tl.arange(0, TILE_H * TILE_W)
    return program % heads, tile // columns * TILE_H + n // TILE_W, tile % columns * TILE_W + n % TILE_W


@triton.jit
def _load(image, r, c, dy, dx, height, width, dim, d, head_dim):
    """Load channels `d` of the pixels (2 r + dy, 2 c + dx): (N, D) in float32, zeros outside the map."""
    y, x = 2 * r + dy, 2 * c + dx
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    mask = inside[:, None] & (d < head_dim)[None, :]
    return tl.load(image + (y * width + x)[:, None] * dim + d[None, :], mask=mask, other=0.0).to(tl.float32)


@triton.jit
def _store(image, value, r, c, dy, dx, height, width, dim, d, head_dim):
    """Store to the pixels of `_load`."""
    y, x = 2 * r + dy, 2 * c + dx
    mask = ((y < height) & (x < width))[:, None] & (d < head_dim)[None, :]
    tl.store(image + (y * width + x)[:, None] * dim + d[None, :], value.to(image.dtype.element_ty), mask=mask)


@triton.jit
def _softmax(row, exists, scale2):
    """Return the weights of nine logits at `row`, 0 where there is no window, and log2 of their exponentials' sum."""
    logits = ()
    for k in tl.static_range(9):
        logits = logits + (tl.load(row + k, mask=exists, other=0.0).to(tl.float32) * scale2,)
    top = logits[0]
    for k in tl.static_range(1, 9):
        top = tl.maximum(top, logits[k])
    total = tl.zeros_like(top)
    powers = ()
    for k in tl.static_range(9):
        powers = powers + (tl.exp2(logits[k] - top),)
        total += powers[k]
    share = tl.where(exists, 1.0 / total, 0.0)
    weights = ()
    for k in tl.static_range(9):
        weights = weights + (powers[k] * share,)
    return weights + (top + tl.log2(total),)


@triton.jit
def _put(sums, mask, lse, values):
    """Write `lse` into the columns of `sums` in `mask`.

    It is written as the maximum of equal values (-inf for a pixel that is all NaN) in the layout of `values`, that of
    the products: otherwise the compiler computes all softmaxes twice, there and in the layout of the store.
    """
    equal = tl.where(values == values, lse[:, None], float('-inf'))
    return tl.where(mask, tl.max(equal, axis=1)[:, None], sums)


@triton.jit
def _forward(
    v, logits, out, lse, height, width, heads, head_dim, scale2,
    TILE_H: tl.constexpr, TILE_W: tl.constexpr, D: tl.constexpr,
):  # fmt: skip
    h, w, dim = (height + 1) // 2, (width + 1) // 2, heads * head_dim
    head, r, c = _position(heads, w, TILE_H, TILE_W)
    batch = tl.program_id(1).to(tl.int64)
    v += batch * height * width * dim + head * head_dim
    out += batch * height * width * dim + head * head_dim
    logits += (batch * h * w * heads + head) * 81
    lse += (batch * heads + head) * 9 * h * w
    d = tl.arange(0, D)
    zero = tl.zeros([TILE_H * TILE_W, D], tl.float32)
    pixel0, pixel1, pixel2, pixel3 = zero, zero, zero, zero
    column = tl.arange(0, 16)[None, :]
    sums = tl.zeros([TILE_H * TILE_W, 16], tl.float32)
    for i in tl.static_range(2):
        for j in tl.static_range(2):  # the window itself, right, below, across
            exists = (r + i < h) & (c + j < w)
            window = (r + i) * w + c + j
            values = ()
            for k in tl.static_range(9):
                values = values + (
                    _load(v, r, c, 2 * i + k // 3 - 1, 2 * j + k % 3 - 1, height, width, dim, d, head_dim),
                )
            for ti in tl.static_range(1 - i, 3 - 2 * i):
                for tj in tl.static_range(1 - j, 3 - 2 * j):  # its taps on the pixels
                    tap = 3 * ti + tj
                    weights = _softmax(logits + window * heads * 81 + tap * 9, exists, scale2)
                    sums = _put(sums, column == tap, weights[9], values[4])
                    mixed = weights[0][:, None] * values[0]
                    for k in tl.static_range(1, 9):
                        mixed += weights[k][:, None] * values[k]
                    pixel = 2 * (2 * i + ti - 1) + 2 * j + tj - 1
                    if pixel == 0:
                        pixel0 += mixed
                    elif pixel == 1:
                        pixel1 += mixed
                    elif pixel == 2:
                        pixel2 += mixed
                    else:
                        pixel3 += mixed
    # a row of nine sums has taps of four windows: taps 0 to 2 lie below, those of the first column to the right
    below, right = r[:, None] + (column < 3), c[:, None] + (column % 3 == 0)
    mask = (below < h) & (right < w) & (column < 9)
    tl.store(lse + column * h * w + below * w + right, sums, mask=mask)
    _store(out, pixel0, r, c, 0, 0, height, width, dim, d, head_dim)
    _store(out, pixel1, r, c, 0, 1, height, width, dim, d, head_dim)
    _store(out, pixel2, r, c, 1, 0, height, width, dim, d, head_dim)
    _store(out, pixel3, r, c, 1, 1, height, width, dim, d, head_dim)


@triton.jit
def _weight(logits, lse, r, c, i, j, tap, key, height, width, heads, scale2):
    """Recompute a weight of the window i rows below and j columns to the right; 0 if its tap is outside the map."""
    h, w = (height + 1) // 2, (width + 1) // 2
    window = (r + i) * w + c + j
    y, x = 2 * (r + i) + tap // 3 - 1, 2 * (c + j) + tap % 3 - 1
    inside = (r + i < h) & (c + j < w) & (y >= 0) & (y < height) & (x >= 0) & (x < width)
    total = tl.load(lse + tap * h * w + window, mask=inside, other=float('inf'))
    logit = tl.load(logits + window * heads * 81 + tap * 9 + key, mask=inside, other=0.0)
    return tl.exp2(logit.to(tl.float32) * scale2 - total)


@triton.jit
def _gather(acc, grad, logits, lse, r, c, i, j, key, height, width, heads, head_dim, scale2, d):
    """Add the contributions of the pixel under `key` of a neighbour to that window's nine taps."""
    for tap in range(9):
        weight = _weight(logits, lse, r, c, i, j, tap, key, height, width, heads, scale2)
        there = _load(
            grad, r, c, 2 * i + tap // 3 - 1, 2 * j + tap % 3 - 1, height, width, heads * head_dim, d, head_dim
        )
        acc += weight[:, None] * there
    return acc


@triton.jit
def _backward(
    grad, v, logits, lse, grad_v, grad_logits, height, width, heads, head_dim, scale2, scale,
    TILE_H: tl.constexpr, TILE_W: tl.constexpr, D: tl.constexpr,
):  # fmt: skip
    h, w, dim = (height + 1) // 2, (width + 1) // 2, heads * head_dim
    head, r, c = _position(heads, w, TILE_H, TILE_W)
    batch = tl.program_id(1).to(tl.int64)
    corner = batch * height * width * dim + head * head_dim
    grad, v, grad_v = grad + corner, v + corner, grad_v + corner
    corner = (batch * h * w * heads + head) * 81
    logits, grad_logits = logits + corner, grad_logits + corner
    lse += (batch * heads + head) * 9 * h * w
    d = tl.arange(0, D)
    zero = tl.zeros([TILE_H * TILE_W, D], tl.float32)
    pixel0, pixel1, pixel2, pixel3 = zero, zero, zero, zero
    column = tl.arange(0, 16)[None, :]
    rows = ((r * w + c) * heads * 81)[:, None] + column
    mask = ((r < h) & (c < w))[:, None] & (column < 9)
    values = ()
    for k in tl.static_range(9):
        values = values + (_load(v, r, c, k // 3 - 1, k % 3 - 1, height, width, dim, d, head_dim),)
    for tap in range(9):  # not unrolled: that would take all registers, and minutes to compile
        there = _load(grad, r, c, tap // 3 - 1, tap % 3 - 1, height, width, dim, d, head_dim)
        weights = ()
        for k in tl.static_range(9):
            weights = weights + (_weight(logits, lse, r, c, 0, 0, tap, k, height, width, heads, scale2),)
        pixel0 += weights[4][:, None] * there
        pixel1 += weights[5][:, None] * there
        pixel2 += weights[7][:, None] * there
        pixel3 += weights[8][:, None] * there
        mean = tl.zeros_like(weights[0])
        grads = ()
        for k in tl.static_range(9):
            product = tl.sum(there * values[k], axis=1)
            mean += weights[k] * product
            grads = grads + (product,)
        row = tl.zeros([TILE_H * TILE_W, 16], tl.float32)
        for k in tl.static_range(9):
            row = tl.where(column == k, (weights[k] * (grads[k] - mean) * scale)[:, None], row)
        tl.store(grad_logits + rows + tap * 9, row.to(grad_logits.dtype.element_ty), mask=mask)
    pixel1 = _gather(pixel1, grad, logits, lse, r, c, 0, 1, 3, height, width, heads, head_dim, scale2, d)
    pixel3 = _gather(pixel3, grad, logits, lse, r, c, 0, 1, 6, height, width, heads, head_dim, scale2, d)
    pixel2 = _gather(pixel2, grad, logits, lse, r, c, 1, 0, 1, height, width, heads, head_dim, scale2, d)
    pixel3 = _gather(pixel3, grad, logits, lse, r, c, 1, 0, 2, height, width, heads, head_dim, scale2, d)
    pixel3 = _gather(pixel3, grad, logits, lse, r, c, 1, 1, 0, height, width, heads, head_dim, scale2, d)
    _store(grad_v, pixel0, r, c, 0, 0, height, width, dim, d, head_dim)
    _store(grad_v, pixel1, r, c, 0, 1, height, width, dim, d, head_dim)
    _store(grad_v, pixel2, r, c, 1, 0, height, width, dim, d, head_dim)
    _store(grad_v, pixel3, r, c, 1, 1, height, width, dim, d, head_dim)


def tile(head_dim: int) -> dict[str, int]:
    """Return the tile: each of 128 threads has eight channels of one window (16 bytes of bfloat16)."""
    channels = max(16, triton.next_power_of_2(head_dim))
    return dict(TILE_H=128 // channels, TILE_W=TILE_W, D=channels)


def _launch(kernel: triton.JITFunction, tensors: tuple[Tensor, ...], v: Tensor, logits: Tensor, *scales: float) -> None:
    batch, height, width, dim = v.shape
    h, w, heads = logits.shape[1:4]
    sizes = tile(dim // heads)
    grid = (triton.cdiv(h, sizes['TILE_H']) * triton.cdiv(w, sizes['TILE_W']) * heads, batch)
    # a no-op on the CPU, where Triton's interpreter runs
    with torch.cuda.device_of(v):
        kernel[grid](*tensors, height, width, heads, dim // heads, *scales, **sizes, **OPTIONS)


def forward(v: Tensor, logits: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Compute `ops.outlook_cuda.outlook`."""
    batch, h, w, heads, taps = logits.shape[:5]
    out, lse = torch.empty_like(v), v.new_empty((batch, heads, taps, h, w), dtype=torch.float32)
    _launch(_forward, (v, logits, out, lse), v, logits, scale * LOG2E)
    return out, lse


def backward(grad: Tensor, v: Tensor, logits: Tensor, lse: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Compute `ops.outlook_cuda.outlook_backward`."""
    grad_v, grad_logits = torch.empty_like(v), torch.empty_like(logits)
    _launch(_backward, (grad, v, logits, lse, grad_v, grad_logits), v, logits, scale * LOG2E, scale)
    return grad_v, grad_logits
