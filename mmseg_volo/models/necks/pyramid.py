"""Build a pyramid at strides 4, 8, 16, 32 from maps at any strides (after LV-ViT's side layers)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import Tensor, nn


@MODELS.register_module()
class StridePyramid(BaseModule):
    """Applies one side layer to each map: a bias-free convolution, a norm, a ReLU.

    For a finer stride the convolution is a transposed one with kernel = stride = the ratio, for the same stride 1x1,
    for a coarser one 3x3 with the ratio as its stride. With `refine`, a transposed convolution, its norm and its ReLU
    are followed by a bias-free 1x1 convolution, a norm and a ReLU.

    VOLO's authors fed LV-ViT to UPerNet this way (zihangJiang/TokenLabeling, `seg/mmseg/models/backbones/vit.py`):
    `in_strides=(16, 16, 16, 16)`, `out_strides=(4, 8, 16, 16)`, `refine=True`, `out_channels` of the last map 2048, on
    maps without a norm (`out_norm=False` of our backbones). How they fed VOLO is not published. Our own choices: by
    default a last map at stride 32 from the 3x3 convolution, as wide as its input, and a kernel of 2 for a map at
    stride 8.

    Args:
        in_channels: channels of each map.
        in_strides: stride of each map; VOLO's are (8, 16, 16, 16).
        out_strides: stride of each output; must divide or be a multiple of the map's.
        out_channels: channels of each output; those of the maps if None.
        refine: whether transposed convolutions are followed by a 1x1 convolution, as in LV-ViT.
        norm_cfg: mmcv's norm config; SyncBN if None (BN in a single process).
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        in_strides: Sequence[int],
        out_strides: Sequence[int] = (4, 8, 16, 32),
        out_channels: Sequence[int] | None = None,
        norm_cfg: dict[str, Any] | None = None,
        init_cfg: dict[str, Any] | None = None,
        refine: bool = False,
    ):
        from mmcv.cnn import build_norm_layer  # takes longer to import than the rest of mmseg_volo

        super().__init__(init_cfg)
        out_channels = in_channels if out_channels is None else out_channels
        if not len(in_channels) == len(in_strides) == len(out_strides) == len(out_channels):
            raise ValueError(
                'StridePyramid: in_channels, in_strides, out_strides and out_channels must have one entry per map, got '
                f'{in_channels}, {in_strides}, {out_strides}, {out_channels}'
            )
        self.out_channels = tuple(out_channels)
        self.out_strides = tuple(out_strides)
        self.sides = nn.ModuleList()
        for cin, cout, stride, wanted in zip(in_channels, out_channels, in_strides, out_strides, strict=True):
            convolutions = [_change_stride(cin, cout, stride, wanted)]
            if refine and wanted < stride:
                convolutions.append(nn.Conv2d(cout, cout, 1, bias=False))
            layers: list[nn.Module] = []
            for convolution in convolutions:
                norm = build_norm_layer(norm_cfg or dict(type='SyncBN'), cout)[1]
                layers += [convolution, norm, nn.ReLU(inplace=True)]
            self.sides.append(nn.Sequential(*layers))

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Map each (B, in_channels[i], h, w) to (B, out_channels[i], h * in_stride / out_stride, ...), rounded up."""
        return tuple(side(m) for side, m in zip(self.sides, maps, strict=True))


def _change_stride(cin: int, cout: int, stride: int, wanted: int) -> nn.Module:
    if stride % wanted and wanted % stride:
        raise ValueError(f'StridePyramid: cannot go from stride {stride} to {wanted}, one must divide the other')
    if wanted > stride:
        return nn.Conv2d(cin, cout, 3, wanted // stride, padding=1, bias=False)
    if wanted == stride:
        return nn.Conv2d(cin, cout, 1, bias=False)
    return nn.ConvTranspose2d(cin, cout, stride // wanted, stride // wanted, bias=False)
