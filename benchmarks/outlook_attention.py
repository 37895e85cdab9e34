"""Compare outlook attention with the official unfold, product and fold: `python benchmarks/outlook_attention.py`.

'operator' is the computation between the linear layers: windows, softmax, product, windows added back. 'layer' is the
whole layer, against timm's `OutlookAttention`, the official code; half of our layer's time is its three matrix
products. Memory is the peak of allocations beside the inputs, including those kept for the backward pass; a 'training'
run is forward and backward. The difference is the largest one of the result and of all gradients, divided by the
largest value where that is above 1. In bfloat16 both sides round; most CPUs emulate it, at a fraction of float32's
speed.

With a CUDA device the operator runs there in bfloat16 on 16 times the images, and the last columns give the time that
the bytes of inputs, results and gradients would take at the rate at which the device copies 1 GiB.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from measure import arguments, medians, peak_bytes, report
from timm.models.volo import OutlookAttention as TimmOutlookAttention
from torch import Tensor, nn

from mmseg_volo.models.backbones.volo import OutlookAttention
from mmseg_volo.models.cpu import has_bf16
from mmseg_volo.ops.outlook_attention import outlook

SHAPES = (((1, 128, 128, 192), 6), ((1, 128, 128, 384), 12), ((2, 64, 64, 256), 8))
SAME = {'float32': 1e-5, 'bfloat16': 2**-6}  # largest difference that rounding explains
GPU_IMAGES, GPU_REPEATS = 16, 20
COPIED = 2**30

Side = Callable[[int], Sequence[Tensor]]
Sides = dict[str, Side]


def official(v: Tensor, logits: Tensor) -> Tensor:
    """Compute the middle of OutlookAttention.forward of sail-sg/volo, models/volo.py; arguments as of `outlook`."""
    batch, height, width, dim = v.shape
    h, w, heads = logits.shape[1:4]
    windows = F.unfold(v.permute(0, 3, 1, 2), 3, padding=1, stride=2)
    windows = windows.reshape(batch, heads, dim // heads, 9, h * w).permute(0, 1, 4, 3, 2)
    attn = logits.reshape(batch, h * w, heads, 9, 9).permute(0, 2, 1, 3, 4)
    attn = (attn * (dim // heads) ** -0.5).softmax(dim=-1)
    out = (attn @ windows).permute(0, 1, 4, 3, 2).reshape(batch, dim * 9, h * w)
    return F.fold(out, (height, width), 3, padding=1, stride=2).permute(0, 2, 3, 1)


def runner(
    function: Callable[..., Tensor], inputs: Sequence[Tensor], leaves: Sequence[Tensor], grad: Tensor | None
) -> Side:
    """Return a function that runs forward, or forward and backward if the result's `grad` is given."""

    def work(run: int) -> Sequence[Tensor]:
        with torch.set_grad_enabled(grad is not None):
            out = function(*inputs)
        return [out] if grad is None else [out, *torch.autograd.grad(out, leaves, grad)]

    return work


def operator_inputs(shape: Sequence[int], heads: int, dtype: torch.dtype, device: str) -> list[Tensor]:
    """Make random map, logits, and gradient of the result."""
    batch, height, width, _ = shape
    sizes = (shape, (batch, -(-height // 2), -(-width // 2), heads, 9, 9), shape)
    v, logits, grad = (torch.randn(size, device=device).to(dtype) for size in sizes)
    return [v.requires_grad_(), logits.requires_grad_(), grad]


def operator_sides(inputs: Sequence[Tensor], training: bool) -> Sides:
    *leaves, grad = inputs
    functions = {'official': official, 'ours': outlook}
    return {name: runner(function, leaves, leaves, grad if training else None) for name, function in functions.items()}


def layer_sides(inputs: Sequence[Tensor], layers: dict[str, nn.Module], training: bool) -> Sides:
    x, _, grad = inputs
    return {
        name: runner(layer, [x], [x, *layer.parameters()], grad if training else None) for name, layer in layers.items()
    }


def difference(first: Sequence[Tensor], second: Sequence[Tensor]) -> float:
    pairs = [(a.float(), b.float()) for a, b in zip(first, second, strict=True)]
    return max(((a - b).abs().max() / b.abs().max().clamp(min=1)).item() for a, b in pairs)


def timed(side: Side, repeats: int) -> Callable[[int], None]:
    """Repeat a side, so that on a GPU its work, not the launches, takes the time."""

    def work(run: int) -> None:
        for _ in range(repeats):
            out = side(run)
        if out[0].is_cuda:
            torch.cuda.synchronize()

    return work


def compare(sides: Sides, known: Sequence[Tensor], runs: int, repeats: int = 1) -> dict[str, Any]:
    """Measure both sides; return a row of the table without its label."""
    results = [side(0) for side in sides.values()]
    gap = difference(results[1], results[0])
    del results
    peaks = {name: peak_bytes(side, known) for name, side in sides.items()}
    seconds = medians({name: timed(side, repeats) for name, side in sides.items()}, runs)
    return {
        **{f'{name} ms': 1e3 * value / repeats for name, value in seconds.items()},
        'times faster': seconds['official'] / seconds['ours'],
        **{f'{name} MB': value / 1e6 for name, value in peaks.items()},
        'of its memory': peaks['ours'] / peaks['official'],
        'difference': gap,
    }


def label(shape: Sequence[int], heads: int, dtype: torch.dtype, scope: str, training: bool) -> dict[str, Any]:
    kind = 'training' if training else 'forward'
    return {'shape': 'x'.join(map(str, shape)), 'heads': heads, 'dtype': str(dtype)[6:], 'of': scope, 'run': kind}


def on_cpu(shape: Sequence[int], heads: int, dtype: torch.dtype, runs: int) -> list[dict[str, Any]]:
    inputs = operator_inputs(shape, heads, dtype, 'cpu')
    theirs = TimmOutlookAttention(shape[-1], heads, 3, 1, 2).to(dtype)
    layers = {'official': theirs, 'ours': OutlookAttention(shape[-1], heads).to(dtype)}
    layers['ours'].load_state_dict(theirs.state_dict())
    known = [*inputs, *(p for layer in layers.values() for p in layer.parameters())]
    rows = []
    for scope in ('operator', 'layer'):
        for training in (False, True):
            sides = operator_sides(inputs, training) if scope == 'operator' else layer_sides(inputs, layers, training)
            rows.append({**label(shape, heads, dtype, scope, training), **compare(sides, known, runs)})
    return rows


def copy_rate() -> float:
    """Measure the bytes per second, read and written, of a copy on the device."""
    source = torch.empty(COPIED, dtype=torch.uint8, device='cuda')
    target = torch.empty_like(source)
    copy = timed(lambda run: [target.copy_(source)], GPU_REPEATS)
    return 2 * COPIED * GPU_REPEATS / medians({'copy': copy}, 5)['copy']


def on_gpu(shape: Sequence[int], heads: int, rate: float, runs: int) -> dict[str, Any]:
    shape = (GPU_IMAGES * shape[0], *shape[1:])
    inputs = operator_inputs(shape, heads, torch.bfloat16, 'cuda')
    measured = compare(operator_sides(inputs, True), inputs, runs, GPU_REPEATS)
    v, logits = (t.numel() * t.element_size() for t in inputs[:2])
    # forward: map, logits, result; backward: gradient, map, logits, and the gradients of both
    ideal = 1e3 * (5 * v + 3 * logits) / rate
    row = {**label(shape, heads, torch.bfloat16, 'operator', True), **measured}
    return {**row, 'bytes ms': ideal, 'times that': measured['ours ms'] / ideal}


def main() -> None:
    args = arguments(
        __doc__.splitlines()[0],
        {'--bf16': dict(action='store_true', help='in bfloat16 also where the processor emulates it')},
    )
    torch.manual_seed(0)
    about = 'Outlook attention'
    if torch.cuda.is_available():
        rate = copy_rate()
        about += f' on {torch.cuda.get_device_name()}, which copies {rate / 1e12:.2f} TB/s'
        rows = [on_gpu(shape, heads, rate, args.runs) for shape, heads in SHAPES]
    else:
        dtypes = (torch.float32, torch.bfloat16) if args.bf16 or has_bf16() else (torch.float32,)
        rows = [row for dtype in dtypes for shape in SHAPES for row in on_cpu(*shape, dtype, args.runs)]
    report(about, rows, args)
    if not all(row['difference'] <= SAME[row['dtype']] for row in rows):
        raise SystemExit('the sides differ')


if __name__ == '__main__':
    main()
