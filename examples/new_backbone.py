"""Defines a backbone outside the package, in 40 lines: depthwise convolutions at strides 4, 8, 16 and 32."""

from mmengine.registry import MODELS
from torch import Tensor, nn

from mmseg_volo.models.backbones.base import Backbone


class Block(nn.Module):
    def __init__(self, dim: int):
        super().__init__()
        self.mixer = nn.Sequential(nn.Conv2d(dim, dim, 5, padding=2, groups=dim), nn.BatchNorm2d(dim))
        self.mlp = nn.Sequential(nn.Conv2d(dim, 2 * dim, 1), nn.GELU(), nn.Conv2d(2 * dim, dim, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mlp(self.mixer(x))


@MODELS.register_module()
class TinyConv(Backbone):  # handles any image size, out_norms, freezing, layer ids, strict loading
    stem_key = 'downs.0.weight'

    def __init__(self, dims: tuple = (16, 32, 64, 64), depths: tuple = (1, 1, 2, 1), *, in_channels: int = 3,
                 out_indices: tuple = (0, 1, 2, 3), frozen_stages: int = -1, init_cfg: dict | None = None):  # fmt: skip
        options = dict(out_indices=out_indices, frozen_stages=frozen_stages, init_cfg=init_cfg)
        super().__init__(dims, (4, 8, 16, 32), in_channels=in_channels, **options)
        steps = [(in_channels, dims[0], 4), *((a, b, 2) for a, b in zip(dims, dims[1:], strict=False))]
        self.downs = nn.ModuleList(nn.Conv2d(a, b, s, s) for a, b, s in steps[: self.num_stages])
        self.stages = nn.ModuleList(nn.Sequential(*map(Block, [dims[i]] * depths[i])) for i in range(self.num_stages))
        self._freeze()

    def _stages_forward(self, x: Tensor) -> list[Tensor]:
        maps = []
        for down, stage in zip(self.downs, self.stages, strict=True):
            maps.append(x := self._run_blocks(stage, down(x)))
        return maps

    def _stage_modules(self) -> list:
        return [[self.downs[0]], [self.stages[0]], *zip(self.downs[1:], self.stages[1:], strict=False)]
