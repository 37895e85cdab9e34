"""Define CoAtNet (arXiv 2106.04803): stages of MBConv blocks, then of transformer blocks with relative attention.

Neither code nor weights were published; blocks, names and weights are timm's (`timm/models/maxxvit.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any, cast

import torch
from mmengine.registry import MODELS
from torch import Tensor, nn

from mmseg_volo.models.backbones.base import Backbone, resolve_arch
from mmseg_volo.models.backbones.coatnet_blocks import ACTS, Arch, MBConv, Stem, TransformerBlock

# timm's own variants; `_timm` is what all of them share
_timm = partial(Arch, expand_output=False, expand_first=False, act_layer='silu', rel_pos_resize='geometric')
_rw = partial(_timm, pre_norm_act=True, output_bias=False, attn_act_layer='relu')
_rw01 = partial(_rw, attn_early=True, shortcut_bias=False)
_rw2 = partial(_rw, attn_act_layer='silu')
_NANO = ((3, 4, 6, 3), (64, 128, 256, 512), (32, 64))
_RW0 = ((2, 3, 7, 2), (96, 192, 384, 768), (32, 64))  # two blocks deeper than the paper's 0
_RW1 = ((2, 6, 14, 2), (96, 192, 384, 768), (32, 64))
_DIMS2, _DIMS3 = (128, 256, 512, 1024), (192, 384, 768, 1536)
ARCHS = {
    '0': Arch((2, 3, 5, 2), (96, 192, 384, 768), (64, 64)),
    '1': Arch((2, 6, 14, 2), (96, 192, 384, 768), (64, 64)),
    '2': Arch((2, 6, 14, 2), _DIMS2, (128, 128)),
    '3': Arch((2, 6, 14, 2), _DIMS3, (192, 192)),
    '4': Arch((2, 12, 28, 2), _DIMS3, (192, 192)),
    '5': Arch((2, 12, 28, 2), (256, 512, 1280, 2048), (192, 192), dim_head=64),
    '6': Arch((2, 4, 50, 2), (192, 384, 1536, 3072), (192, 192), dim_head=128, lead=(8, 768)),
    '7': Arch((2, 4, 50, 2), (256, 512, 2048, 3072), (192, 192), dim_head=128, lead=(8, 1024)),
    'nano_rw': _timm(*_NANO, stride_mode='pool'),
    'rmlp_nano_rw': _timm(*_NANO, rel_pos_type='mlp', rel_pos_dim=384),
    '0_rw': _rw01(*_RW0, stride_mode='pool'),
    'bn_0_rw': _rw01(*_RW0, norm_layer='batchnorm2d'),
    '1_rw': _rw01(*_RW1),
    'rmlp_1_rw': _rw01(*_RW1, stride_mode='pool', pool_type='max', rel_pos_type='mlp', rel_pos_dim=384),
    'rmlp_1_rw2': _rw(*_RW1, rel_pos_type='mlp'),
    '2_rw': _rw2((2, 6, 14, 2), _DIMS2, (64, 128)),
    'rmlp_2_rw': _rw2((2, 6, 14, 2), _DIMS2, (64, 128), rel_pos_type='mlp', init_values=1e-6),
    '3_rw': _rw2((2, 6, 14, 2), _DIMS3, (96, 192), init_values=1e-6),
}
STRIDES = (4, 8, 16, 32)
LAYOUTS = ('CCCC', 'CCCT', 'CCTT', 'CTTT')  # section 2.2 of the paper: convolution first, in stage 1 always
CHOICES = {
    'act_layer': tuple(ACTS),
    'attn_act_layer': tuple(ACTS),
    'stride_mode': ('dw', '1x1', 'pool'),
    'pool_type': ('avg2', 'max'),
    'norm_layer': ('layernorm2d', 'batchnorm2d'),
    'rel_pos_type': ('bias', 'mlp'),
    'rel_pos_resize': ('bilinear', 'geometric'),
}


def _check(a: Arch, stages: str) -> None:
    if stages not in LAYOUTS:
        raise ValueError(f'CoAtNet: stages must be one of {LAYOUTS}, got {stages!r}')
    if not (len(a.depths) == len(a.dims) == len(STRIDES) and len(a.stem_width) == 2 and len(a.lead) in (0, 2)):
        raise ValueError(f'CoAtNet: depths and dims have 4 entries, stem_width 2, lead 0 or 2, got {a}')
    for field, known in CHOICES.items():
        if getattr(a, field) not in known:
            raise ValueError(f'CoAtNet: {field} must be one of {known}, got {getattr(a, field)!r}')
    if a.lead and a.lead[0] >= a.depths[2]:
        raise ValueError(f'CoAtNet: lead counts in the depth of the third stage, got {a.lead} and depth {a.depths[2]}')


def _stage(a: Arch, i: int, kind: str, grid: int, rates: Sequence[float]) -> nn.Module:
    dim = a.dims[i - 1] if i else a.stem_width[-1]
    count, width = a.lead if a.lead and i == 2 else (0, 0)
    blocks: list[nn.Module] = []
    for j, rate in enumerate(rates):
        stride, out_dim = 1 if j else 2, width if j < count else a.dims[i]
        if kind == 'C' or j < count:
            blocks.append(MBConv(a, dim, out_dim, stride, rate))
        else:
            blocks.append(TransformerBlock(a, dim, out_dim, stride, grid, rate))
        dim = out_dim
    return nn.ModuleDict({'blocks': nn.Sequential(*blocks)})


@MODELS.register_module()
class CoAtNet(Backbone):
    """CoAtNet 0 to 7 and timm's variants ('rw') as a backbone of four maps, at strides 4, 8, 16, 32.

    Deviations of 0 to 7 from the paper (appendix A.1), the same as in timm's `coatnet_N_224`: the first MBConv of a
    stage strides in its depthwise convolution (the 'Strided DConv' of table 9, the better one there), not in its first
    one (`stride_mode='1x1'`); shortcuts and the transformer's branch pool means, not maxima (`pool_type='max'`). For 6
    table 12 prints a last stage of width 2048, which makes 1.35B parameters and 1480 GMACs at 512x512; with 3072, as
    here, it has the published 1.47B, and 1510 of the published 1521. 7 is as printed (2.44B; 2561 of 2586).

    Inputs need not have the trained size. 0 to 7 resize their biases bilinearly, as in the paper. timm's variants do
    what timm does for a model of another `img_size`, so features equal timm's at every size: see `RelPosBias` and
    `RelPosMlp`. Images are padded to multiples of 32; attention and squeeze-and-excitation include the padding.

    Deviation from timm: 5 has heads of 64 channels, as in the paper, not 32.

    Args:
        arch: '0' to '7', timm's 'nano_rw', '0_rw' and so on, or a dict with the fields of `Arch`.
        stages: which stages convolve and which attend: 'CCCC', 'CCCT', 'CCTT' or 'CTTT' (section 2.2 of the paper).
        pretrain_img_size: also sets the size of the bias tables; without effect on the 'rmlp' variants.

    The other arguments are those of `Backbone`.
    """

    stem_key = 'stem.conv1.weight'
    ignored_keys = ('norm.', 'head.')

    def __init__(
        self,
        arch: str | Mapping[str, Any],
        *,
        stages: str = 'CCTT',
        out_indices: Sequence[int] = (0, 1, 2, 3),
        in_channels: int = 3,
        drop_path_rate: float = 0.0,
        frozen_stages: int = -1,
        pretrain_img_size: int = 224,
        with_cp: bool = False,
        out_norm: bool = True,
        init_cfg: dict[str, Any] | None = None,
    ):
        a = resolve_arch('CoAtNet', ARCHS, arch)
        _check(a, stages)
        super().__init__(
            a.dims,
            STRIDES,
            out_indices=out_indices,
            in_channels=in_channels,
            drop_path_rate=drop_path_rate,
            frozen_stages=frozen_stages,
            pretrain_img_size=pretrain_img_size,
            with_cp=with_cp,
            out_norm=out_norm,
            init_cfg=init_cfg,
        )
        self.stem = Stem(in_channels, a)
        rates = torch.linspace(0, drop_path_rate, sum(a.depths), device='cpu').split(list(a.depths))
        self.stages = nn.ModuleList(
            _stage(a, i, stages[i], pretrain_img_size // STRIDES[i], rates[i].tolist()) for i in range(self.num_stages)
        )
        self._freeze()

    def _stage_modules(self) -> Sequence[Sequence[nn.Module | nn.Parameter]]:
        return [[self.stem], *([stage] for stage in self.stages)]

    def _convert(self, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        unbuilt = tuple(f'stages.{i}.' for i in range(self.num_stages, len(STRIDES)))
        own, converted = self.state_dict(), {}
        for key, value in state_dict.items():
            if key.startswith(unbuilt) or key.endswith(('.relative_position_index', '.rel_coords_log')):
                continue
            linear = key in own and own[key].ndim == 2 and value.shape[2:] == (1, 1)  # timm's are 1x1 convolutions
            converted[key] = value.flatten(1) if linear else value
        return converted

    def _stages_forward(self, x: Tensor) -> list[Tensor]:
        x = self.stem(x)
        maps = []
        for stage in cast('Iterable[nn.ModuleDict]', self.stages):
            x = self._run_blocks(stage['blocks'], x)
            maps.append(x)
        return maps
