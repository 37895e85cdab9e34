"""What a training costs on GPUs, estimated without one: its real iteration, counted on the meta device.

FLOPs are those of the forward and the backward pass, with what `with_cp` computes twice. Hours are FLOPs at `SHARE` of
the peak of `GPU`, which is an assumption. Validation is not counted, and small models on small crops, which wait for
kernels to start and for images, take longer.

Memory is the peak of what an iteration allocates and has not freed yet (activations, gradients, temporaries), under
bfloat16 autocast as on CUDA and with torch's memory-efficient attention, plus weights, AdamW's two states and, with
several GPUs, DDP's buckets of gradients, all float32; times `OVERHEAD` for workspaces of convolutions and the like.
That is measured: MMSegmentation's model zoo gives 1.21 to 1.40 times what is counted here for eight of its configs,
1.27 in the mean (UPerNet with Swin-T, -B, ConvNeXt-T, -B, ResNet-50 twice; SegFormer-B0, -B5).
"""

from __future__ import annotations

import argparse
import math
import re
import weakref
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import DefaultScope
from mmseg.models.utils import resize
from mmseg.registry import MODELS
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

import mmseg_volo.models.segmentors  # noqa: F401, registers whatever models are made of
from mmseg_volo.config import find_config, load_config, shipped_configs
from mmseg_volo.zoo.recipe_card import write_estimate

GPU, PEAK = 'A100', 312e12  # dense bfloat16 FLOP/s, NVIDIA's data sheet
SHARE = 0.15
OVERHEAD = 1.3
STATES, BUCKETS = 12, 4  # bytes per parameter: weight and AdamW's two moments; DDP's copy of the gradients

# of what our models call, what autocast on CUDA computes in bfloat16 and what in float32 (torch 2.15,
# ATen/autocast_mode.h; a square is a power there)
NARROW = (F.linear, F.conv2d, F.conv_transpose2d, torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.bmm)
WIDE = (F.layer_norm, F.group_norm, F.softmax, torch.softmax, Tensor.softmax, F.cross_entropy)
WIDE += (F.interpolate, Tensor.square, Tensor.pow, Tensor.sum)


class Cost(NamedTuple):
    """Of a training by its recipe."""

    gpus: int
    iterations: int
    flops: int  # of one GPU in one iteration
    memory: float  # bytes of one GPU at the peak

    @property
    def hours(self) -> float:
        return self.flops * self.iterations / (SHARE * PEAK) / 3600

    def __str__(self) -> str:
        hours = f'{self.hours:.0f}' if self.hours >= 9.95 else f'{self.hours:.1f}'
        return (
            f'estimated {hours} h on {self.gpus} {GPU} at {100 * SHARE:.0f} % of their bf16 peak, '
            f'{math.ceil(self.memory / 2**30)} GB each (tools/recipe_cost.py); not measured.'
        )


def build_on_meta(cfg: Config) -> nn.Module:
    """The segmentor of a config, without any weights and as one process has it."""
    parts = {**cfg.model, 'backbone': {**cfg.model.backbone, 'init_cfg': None}}
    with torch.device('meta'), DefaultScope.overwrite_default_scope('mmseg'):
        return revert_sync_batchnorm(MODELS.build(parts))


def estimate(cfg: Config) -> Cost:
    """What the recipe of a config costs, on as many GPUs as its batch needs."""
    images = cfg.train_dataloader.batch_size
    gpus = cfg.auto_scale_lr.base_batch_size // images
    model = build_on_meta(cfg).train()
    flops, peak = count_flops(model, images, cfg.crop_size)
    per_parameter = STATES + BUCKETS * (gpus > 1)
    constant = sum(per_parameter * p.numel() for p in model.parameters() if p.requires_grad)
    return Cost(gpus, cfg.train_cfg.max_iters, flops, OVERHEAD * (constant + peak))


def count_flops(model: nn.Module, images: int, crop: Sequence[int], autocast: bool = True) -> tuple[int, int]:
    """FLOPs of a training iteration, and peak of the bytes that it allocates (its gradients too, not its weights).

    Args:
        model: a segmentor of mmseg with gradients, on the meta device, or on any where `autocast` is off.
        images: of one iteration.
        crop: their height and width.
        autocast: in bfloat16 as on CUDA, with a fused attention; else as the model is.
    """
    with torch.device(next(model.parameters()).device), LiveMemory(model) as memory:
        formulas = {torch.ops.aten.convolution_backward: _convolution_backward_flops}
        with FlopCounterMode(display=False, custom_mapping=formulas) as counter, Autocast(autocast):
            # the state that meta tensors do not heed, but the model's own code and `Autocast` do
            with torch.autocast('cpu', torch.bfloat16, enabled=autocast):
                loss = _loss(model, torch.zeros(images, 3, *crop), torch.zeros(images, *crop, dtype=torch.long))
            # what `loss.backward()` calls: that itself would run outside of `Autocast`, with all that is recomputed
            engine = torch.autograd.Variable._execution_engine
            engine.run_backward((loss,), (torch.ones_like(loss),), False, False, (), True, True)
    return counter.get_total_flops(), memory.peak


def _loss(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """mmseg's cross-entropy of all heads without its accuracy, which looks at values."""
    maps, total = model.extract_feat(images), 0
    for head in [model.decode_head, *([model.auxiliary_head] if model.with_auxiliary_head else [])]:
        logits = resize(head(maps), size=labels.shape[1:], mode='bilinear', align_corners=head.align_corners)
        total = total + F.cross_entropy(logits, labels, reduction='none', ignore_index=head.ignore_index).mean()
    return total


def _convolution_backward_flops(grad: list[int], x: list[int], weight: list[int], *args: Any, **kwargs: Any) -> int:
    """As many for each gradient as forward, in groups too, which torch's own formula leaves out."""
    transposed, output_mask = args[4], args[7]
    return conv_flop_count(x, weight, grad, transposed) * sum(output_mask[:2])


class LiveMemory(TorchDispatchMode):
    """Follows the storages that operators make in its context: `peak` is the largest sum of bytes alive at once.

    Args:
        model: its weights are there already and do not count.
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
    """Casts what autocast on CUDA casts, where `torch.autocast` of the CPU is on, and fuses attention.

    Args:
        enabled: off, it does nothing.
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
    """On the meta device torch would write out the matrix of all pairs, which no GPU does."""
    if attn_mask is not None:
        attn_mask = attn_mask.expand(*query.shape[:-1], key.shape[-2])
    kernel = torch.ops.aten._scaled_dot_product_efficient_attention
    return kernel(query, key, value, attn_mask, compute_log_sumexp=True, scale=scale)[0]


def main(argv: Sequence[str]) -> int:
    """`tools/recipe_cost.py`: prints the estimates of configs, and writes them into their recipe cards."""
    parser = argparse.ArgumentParser('recipe_cost.py', description=re.split(r'\n\n', __doc__)[0])
    parser.add_argument('configs', nargs='*', help='paths or names; all shipped ones if none is given')
    parser.add_argument('--write', action='store_true', help='replace the estimates that stand in the docstrings')
    args = parser.parse_args(argv)
    for name in args.configs or shipped_configs():
        path = find_config(name)
        cost = estimate(load_config(path))
        print(f'{path.stem}: {cost.flops / 1e12:.2f} TFLOP per GPU and iteration; {cost}', flush=True)
        if args.write and not write_estimate(path, str(cost)):
            print(f'{path.stem}: its card holds no estimate, and was left as it is')
    return 0
