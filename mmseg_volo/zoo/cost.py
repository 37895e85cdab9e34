"""Estimate the cost of a training without a GPU, by counting one of its iterations on the meta device.

FLOPs are those of the forward and the backward pass, including the blocks that `with_cp` computes twice. Hours are
FLOPs at `SHARE` of the peak of `GPU`, an assumption. Validation is not counted, and small models on small crops, which
wait for kernel launches and for images, take longer.

Memory is the peak of an iteration's live allocations (activations, gradients, temporaries), under bfloat16 autocast as
on CUDA and with torch's memory-efficient attention, plus weights, AdamW's two states and, with several GPUs, DDP's
buckets of gradients, all float32; times `OVERHEAD` for workspaces of convolutions and the like. That factor is
measured: MMSegmentation's model zoo reports 1.21 to 1.40 times the bytes counted here for eight of its configs, 1.27 on
average (UPerNet with Swin-T, -B, ConvNeXt-T, -B, ResNet-50 twice; SegFormer-B0, -B5).
"""

from __future__ import annotations

import argparse
import math
import weakref
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import DefaultScope
from mmseg.models import BaseSegmentor
from mmseg.models.utils import resize
from mmseg.registry import MODELS
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

import mmseg_volo.models.segmentors  # noqa: F401, registers all modules of our models
from mmseg_volo.config import CONFIGS, find_config, load_config, shipped_configs
from mmseg_volo.zoo.results import SHARE, CostEstimate, write_estimate

PEAK = 312e12  # FLOP/s of `GPU` in dense bfloat16, NVIDIA's data sheet
OVERHEAD = 1.3
STATES, BUCKETS = 12, 4  # bytes per parameter: weight and AdamW's two moments; DDP's copy of the gradients

# functions that our models call and that autocast on CUDA computes in bfloat16, and in float32 (torch 2.15,
# ATen/autocast_mode.h; a square is a power there)
NARROW = (F.linear, F.conv2d, F.conv_transpose2d, torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.bmm)
WIDE: tuple[Callable[..., Any], ...] = (F.layer_norm, F.group_norm, F.softmax, torch.softmax, Tensor.softmax)
WIDE += (F.cross_entropy, F.interpolate, Tensor.square, Tensor.pow, Tensor.sum)


class Cost(NamedTuple):
    """Count the cost of a training by its recipe."""

    gpus: int
    iterations: int
    flops: int  # of one GPU in one iteration
    memory: float  # bytes of one GPU at the peak

    @property
    def hours(self) -> float:
        return self.flops * self.iterations / (SHARE * PEAK) / 3600

    @property
    def rounded(self) -> CostEstimate:
        """The cost as recipe cards state it."""
        hours = round(self.hours, 0 if self.hours >= 9.95 else 1)
        return CostEstimate(hours, self.gpus, math.ceil(self.memory / 2**30))


def build_on_meta(cfg: Config) -> BaseSegmentor:
    """Build the segmentor of a config on the meta device, without weights and as in a single process."""
    model = {**cfg.model, 'backbone': {**cfg.model.backbone, 'init_cfg': None}}
    with torch.device('meta'), DefaultScope.overwrite_default_scope('mmseg'):
        return revert_sync_batchnorm(MODELS.build(model))


def estimate(cfg: Config) -> Cost:
    """Estimate the cost of a config's recipe, on as many GPUs as its batch needs."""
    images = cfg.train_dataloader.batch_size
    gpus = cfg.auto_scale_lr.base_batch_size // images
    model = build_on_meta(cfg).train()
    flops, peak = count_flops(model, images, cfg.crop_size)
    per_parameter = STATES + BUCKETS * (gpus > 1)
    constant = sum(per_parameter * p.numel() for p in model.parameters() if p.requires_grad)
    return Cost(gpus, cfg.train_cfg.max_iters, flops, OVERHEAD * (constant + peak))


def count_flops(model: BaseSegmentor, images: int, crop: Sequence[int], autocast: bool = True) -> tuple[int, int]:
    """Count the FLOPs of a training iteration and the peak of its allocated bytes (with gradients, without weights).

    Args:
        model: a segmentor of mmseg with gradients, on the meta device, or on any if `autocast` is off.
        images: of one iteration.
        crop: their height and width.
        autocast: compute in bfloat16 as on CUDA, with a fused attention; else in the model's own type.
    """
    with torch.device(next(model.parameters()).device), LiveMemory(model) as memory:
        formulas = {torch.ops.aten.convolution_backward: _convolution_backward_flops}
        with FlopCounterMode(display=False, custom_mapping=formulas) as counter, Autocast(autocast):
            # meta tensors ignore this state, but the model's own code and `Autocast` read it
            with torch.autocast('cpu', torch.bfloat16, enabled=autocast):
                loss = _loss(model, torch.zeros(images, 3, *crop), torch.zeros(images, *crop, dtype=torch.long))
            # `loss.backward()` calls this, but outside of `Autocast`, recomputed blocks included
            engine = torch.autograd.Variable._execution_engine
            engine.run_backward((loss,), (torch.ones_like(loss),), False, False, (), True, True)
    return counter.get_total_flops(), memory.peak


def _loss(model: BaseSegmentor, images: Tensor, labels: Tensor) -> Tensor:
    """Compute mmseg's cross-entropy of all heads, without its accuracy, which needs the values of tensors."""
    maps = model.extract_feat(images)

    def of_head(head: Any) -> Tensor:
        logits = resize(head(maps), size=labels.shape[1:], mode='bilinear', align_corners=head.align_corners)
        return F.cross_entropy(logits, labels, reduction='none', ignore_index=head.ignore_index).mean()

    loss = of_head(model.decode_head)
    return loss + of_head(model.auxiliary_head) if model.with_auxiliary_head else loss


def _convolution_backward_flops(grad: list[int], x: list[int], weight: list[int], *args: Any, **kwargs: Any) -> int:
    """Count as many FLOPs for each gradient as forward, also with groups, which torch's own formula ignores."""
    transposed, output_mask = args[4], args[7]
    return conv_flop_count(x, weight, grad, transposed) * sum(output_mask[:2])


class LiveMemory(TorchDispatchMode):
    """Track the storages that operators allocate in its context: `peak` is the largest sum of bytes alive at once.

    Args:
        model: its weights exist already and do not count.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.alive = self.peak = 0
        self._known = {t.untyped_storage()._cdata for t in (*model.parameters(), *model.buffers())}

    def __torch_dispatch__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for t in tree_leaves(out):
            if isinstance(t, Tensor) and (key := (storage := t.untyped_storage())._cdata) not in self._known:
                self._known.add(key)
                self.alive += storage.nbytes()
                self.peak = max(self.peak, self.alive)
                weakref.finalize(storage, self._freed, key, storage.nbytes()).atexit = False
        return out

    def _freed(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.alive -= size


class Autocast(TorchFunctionMode):
    """Cast as autocast on CUDA does, where `torch.autocast` of the CPU is on, and fuse attention.

    Args:
        enabled: whether to do anything.
    """

    def __init__(self, enabled: bool):
        super().__init__()
        self.enabled = enabled

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        if not self.enabled:
            return func(*args, **kwargs)
        attends = func is F.scaled_dot_product_attention
        if torch.is_autocast_enabled('cpu') and (attends or func in NARROW or func in WIDE):
            dtype = torch.float32 if func in WIDE else torch.bfloat16
            args, kwargs = tree_map_only(Tensor, lambda t: t.to(dtype) if t.is_floating_point() else t, (args, kwargs))
        return _fused_attention(*args, **kwargs) if attends else func(*args, **kwargs)


def _fused_attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, scale: float | None = None
) -> Tensor:
    """Run the fused kernel: on the meta device torch would allocate the matrix of all pairs, as no GPU does."""
    if attn_mask is not None:
        attn_mask = attn_mask.expand(*query.shape[:-1], key.shape[-2])
    kernel = torch.ops.aten._scaled_dot_product_efficient_attention
    return kernel(query, key, value, attn_mask, compute_log_sumexp=True, scale=scale)[0]


def main(argv: Sequence[str]) -> int:
    """Run `tools/recipe_cost.py`: print the estimates of configs, and write them to `results.yml` and recipe cards."""
    parser = argparse.ArgumentParser('recipe_cost.py', description=__doc__.split('\n\n')[0])
    parser.add_argument('configs', nargs='*', help='paths or names; all shipped ones if none is given')
    parser.add_argument('--write', action='store_true', help='update zoo/results.yml and the docstrings of the configs')
    args = parser.parse_args(argv)
    for name in args.configs or shipped_configs():
        path = find_config(name)
        cost = estimate(load_config(path))
        print(f'{path.stem}: {cost.flops / 1e12:.2f} TFLOP per GPU and iteration; {cost.rounded.sentence}', flush=True)
        shipped = path.resolve().parent == CONFIGS.resolve()
        if args.write and not (shipped and write_estimate(path, cost.rounded)):
            print(f'{path.stem}: not written, as results.yml and its docstring hold no common estimate of it')
    return 0
