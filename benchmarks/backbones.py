"""Compare backbones with their peers: `python benchmarks/backbones.py [--compile] [--bf16] [--only MODEL]`.

Peers are timm's, and mmpretrain's for T2T-ViT, built for the measured size, with the same weights; the maps of all
stages are compared. 'training' is forward and backward in training mode, without stochastic depth. mmpretrain's T2T-ViT
divides the logits of its attentions by the scale instead of multiplying them; it is corrected here, which also makes it
faster. Memory is the peak of allocations beside weights and image. 'times' are speed-ups of ours over the peer, once
prepared by `mmseg_volo.load` for predictions on a CPU, and once compiled by torch.compile.

The last row is a whole training step of VOLO-D1 + UPerNet on two images, AdamW included: ours against mmseg's UPerHead
with timm's VOLO through TIMMBackbone, which returns only the three maps at stride 16, so ours does too.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import timm
import torch
import torch.nn.functional as F
from measure import arguments, medians, peak_bytes, report
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, DefaultScope
from mmseg.registry import MODELS as MMSEG_MODELS
from torch import Tensor, nn
from train_step import random_batch

import mmseg_volo  # noqa: F401
from mmseg_volo.config import load_config
from mmseg_volo.models.cpu import has_bf16, optimize_for_cpu

NAMES = ('VOLO-D1', 'CAFormer-S18', 'ConvFormer-S18', 'PoolFormerV2-S12', 'CoAtNet-0', 'CoAtNet-0_rw', 'T2TViT-t_14')
STEP = 'VOLO-D1 + UPerNet'
SAME = {'float32': 1e-4, 'bfloat16': 0.2}  # largest difference of a map, as a share of its standard deviation


class TimmVOLO(nn.Module):
    """Return the maps of timm's VOLO at stride 16, computed by its own modules."""

    def __init__(self, size: int):
        super().__init__()
        self.volo = timm.create_model('volo_d1_224', img_size=size, num_classes=0)

    def forward(self, image: Tensor) -> list[Tensor]:
        x = self.volo.patch_embed(image).permute(0, 2, 3, 1)
        maps = []
        for i, stage in enumerate(self.volo.network):
            x = stage(x + self.volo.pos_embed if i == 2 else x)
            if i != 1:
                maps.append(x.permute(0, 3, 1, 2))
        return maps


class TimmMaps(nn.Module):
    """Return the maps of the last four stages of a timm model."""

    def __init__(self, name: str, **settings: Any):
        super().__init__()
        self.model = timm.create_model(name, **settings)

    def forward(self, image: Tensor) -> list[Tensor]:
        return self.model.forward_intermediates(image, indices=4, intermediates_only=True)


class MmpretrainT2T(nn.Module):
    """Return the maps of mmpretrain's T2T-ViT_t-14, token layers included, with its scale corrected."""

    def __init__(self, size: int):
        super().__init__()
        from mmpretrain.models.backbones import T2T_ViT

        layer = dict(num_heads=6, feedforward_channels=3 * 384)
        self.model = T2T_ViT(size, out_indices=[6, 13], out_type='featmap', final_norm=False, layer_cfgs=layer)
        tokens = self.model.tokens_to_token
        self.tokens: list[Tensor] = []
        for layer in (tokens.attention1, tokens.attention2):
            layer.register_forward_hook(lambda module, inputs, out: self.tokens.append(out))
        for layer in (tokens.attention1, tokens.attention2, *self.model.encoder):
            scale = (layer.attn.input_dims // layer.attn.num_heads) ** -0.5
            layer.attn.scaled_dot_product_attention = partial(F.scaled_dot_product_attention, scale=scale)

    def forward(self, image: Tensor) -> list[Tensor]:
        maps = list(self.model(image))
        first, second = self.tokens
        self.tokens.clear()
        sides = [[side // stride for side in image.shape[2:]] for stride in (4, 8)]
        return [t.mT.unflatten(2, side) for t, side in zip((first, second), sides, strict=True)] + maps


def peer_of(name: str, size: int) -> tuple[dict, nn.Module]:
    """Return our config of a model, and the peer for images of that size."""
    family, arch = name.split('-', 1)
    ours = dict(type=family, arch=arch.lower(), out_norm=False, pretrain_img_size=size)
    if family == 'VOLO':
        return ours, TimmVOLO(size)
    if family == 'T2TViT':
        return ours, MmpretrainT2T(size)
    if family == 'CoAtNet':
        return ours, TimmMaps(f'coatnet_{arch}_224', img_size=size)
    return ours, TimmMaps(f'{family.lower()}_{arch.lower()}')


def pair(name: str, size: int) -> dict[str, nn.Module]:
    """Build both models, with the peer's weights."""
    cfg, theirs = peer_of(name, size)
    ours = MODELS.build(cfg)
    ours.load_pretrained(next(theirs.children()).state_dict())
    return {'peer': theirs, 'ours': ours}


def runner(
    model: Callable[[Tensor], Sequence[Tensor]], image: Tensor, weights: Sequence[Tensor] | None, bf16: bool
) -> Callable[[int], Sequence[Tensor]]:
    """Return a function that runs the model forward, or forward and backward to `weights`."""

    def work(run: int) -> Sequence[Tensor]:
        with torch.set_grad_enabled(weights is not None), torch.autocast('cpu', torch.bfloat16, enabled=bf16):
            maps = model(image)
        if weights is not None:
            loss = sum(m.float().square().mean() for m in maps)
            torch.autograd.grad(loss, weights, allow_unused=True)  # a peer's classifier has no gradient
        return [m.detach() for m in maps]

    return work


def difference(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> float:
    gaps = [(a.float() - b.float()).abs().max() / b.float().std() for a, b in zip(ours, theirs, strict=True)]
    return max(gaps).item()


def compare(sides: dict[str, Callable[[int], Any]], known: Sequence[Tensor], runs: int) -> dict[str, Any]:
    peaks = {side: peak_bytes(sides[side], known) for side in ('peer', 'ours')}
    seconds = medians(sides, runs)
    return {
        **{f'{side} ms': 1e3 * value for side, value in seconds.items() if side in ('peer', 'ours')},
        'times faster': seconds['peer'] / seconds['ours'],
        **{f'{side} times': seconds['peer'] / seconds[side] for side in seconds if side in ('prepared', 'compiled')},
        **{f'{side} MB': value / 1e6 for side, value in peaks.items()},
        'of its memory': peaks['ours'] / peaks['peer'],
    }


def backbone(name: str, size: int, dtype: str, runs: int, compiled: bool) -> list[dict[str, Any]]:
    models = pair(name, size)
    image, rows = torch.randn(1, 3, size, size), []
    for training in (False, True):
        sides = {}
        for side, model in models.items():
            model.train(training)
            weights = [p for p in model.parameters() if p.requires_grad] if training else None
            sides[side] = runner(model, image, weights, dtype == 'bfloat16')
        gap = difference(sides['ours'](0), sides['peer'](0))
        if not training:
            optimize_for_cpu(prepared := copy.deepcopy(models['ours']))
            sides['prepared'] = runner(prepared, image, None, dtype == 'bfloat16')
            gap = max(gap, difference(sides['prepared'](0), sides['peer'](0)))
        if compiled:
            torch.compiler.reset()  # compilations for other models count towards the limit of recompilations
            model = torch.compile(models['ours'], fullgraph=True)
            sides['compiled'] = runner(model, image, weights, dtype == 'bfloat16')
        known = [image, *(t for model in models.values() for t in (*model.parameters(), *model.buffers()))]
        case = {'model': name, 'size': size, 'dtype': dtype, 'run': 'training' if training else 'forward'}
        rows.append({**case, **compare(sides, known, runs), 'difference': gap})
    return rows


def segmentor(cfg: Any, backbone: dict, head: str) -> nn.Module:
    """Build the shipped config's segmentor on three maps at stride 16, in mmseg's EncoderDecoder."""
    model = cfg.model.to_dict()
    model.pop('neck')
    model.update(type='mmseg.EncoderDecoder', backbone=backbone)
    model['data_preprocessor']['size'] = (512, 512)
    model['decode_head'].update(type=head, in_channels=[384] * 3, in_index=[0, 1, 2], dropout_ratio=0.0)
    model['auxiliary_head'].update(in_index=1, dropout_ratio=0.0)
    with DefaultScope.overwrite_default_scope('mmseg'):
        return revert_sync_batchnorm(MMSEG_MODELS.build(model)).train()


def whole_step(runs: int) -> dict[str, Any]:
    """Time a training step on two images of 512x512: forward, backward and AdamW."""
    cfg = load_config('volo_d1_ade20k')
    theirs = dict(type='TIMMBackbone', model_name='volo_d1_224', pretrained=False, img_size=512)
    ours = dict(type='VOLO', arch='d1', out_indices=(1, 2, 3), out_norm=False, pretrain_img_size=512)
    models = {'peer': segmentor(cfg, theirs, 'UPerHead'), 'ours': segmentor(cfg, ours, 'LeanUPerHead')}
    inner = models['peer'].backbone.timm_model
    models['ours'].backbone.load_pretrained(getattr(inner, 'model', inner).state_dict())
    for head in ('decode_head', 'auxiliary_head'):
        getattr(models['ours'], head).load_state_dict(getattr(models['peer'], head).state_dict())
    data = random_batch(2, (512, 512), cfg.num_classes)
    losses: dict[str, list[float]] = {side: [] for side in models}
    sides = {}
    with DefaultScope.overwrite_default_scope('mmseg'):
        for side, model in models.items():
            wrapper = build_optim_wrapper(model, dict(optimizer=dict(type='AdamW', lr=6e-5)))

            def work(run: int, side: str = side, model: nn.Module = model, wrapper: Any = wrapper) -> None:
                losses[side].append(model.train_step(data, wrapper)['loss'].item())

            sides[side] = work
    known = [t for model in models.values() for t in (*model.parameters(), *model.buffers())]
    measured = compare(sides, known, runs)
    gap = max(abs(a / b - 1) for a, b in zip(losses['ours'], losses['peer'], strict=True))
    return {'model': STEP, 'size': 512, 'dtype': 'float32', 'run': 'step', **measured, 'difference': gap}


def main() -> None:
    options = {
        '--only': dict(nargs='+', choices=(*NAMES, STEP), default=(*NAMES, STEP), metavar='MODEL'),
        '--sizes': dict(nargs='+', type=int, default=(224, 512), help='of the square images'),
        '--compile': dict(action='store_true', help='also compile ours with torch.compile, without a graph break'),
        '--bf16': dict(action='store_true', help='bfloat16 autocast also where the processor emulates it'),
    }
    args = arguments(__doc__.splitlines()[0], options)
    torch.manual_seed(0)
    rows = []
    for dtype in ('float32', 'bfloat16') if args.bf16 or has_bf16() else ('float32',):
        for name in args.only:
            for size in args.sizes if name != STEP else ():
                rows += backbone(name, size, dtype, args.runs, args.compile)
    if STEP in args.only:
        rows.append(whole_step(args.runs))
    report('Backbones, one image', rows, args)
    if not all(row['difference'] <= SAME[row['dtype']] for row in rows):
        raise SystemExit('the sides differ')


if __name__ == '__main__':
    main()
