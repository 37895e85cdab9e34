"""Load CamVid (Brostow et al., 2009) with the 11 classes of the SegNet split."""

from __future__ import annotations

from mmengine.registry import DATASETS
from mmseg.datasets import BaseSegDataset

VOID = 11


@DATASETS.register_module()
class CamVidDataset(BaseSegDataset):
    """Serve frames in `images/{train,val,test}` with index PNGs in `labels/{train,val,test}`; 11 is void.

    A label has the stem of its frame. The arguments are those of mmseg's `BaseSegDataset`.
    """

    METAINFO = dict(
        classes=(
            'Sky',
            'Building',
            'Pole',
            'Road',
            'Sidewalk',
            'Tree',
            'SignSymbol',
            'Fence',
            'Car',
            'Pedestrian',
            'Bicyclist',
        ),
        palette=[
            [128, 128, 128],
            [128, 0, 0],
            [192, 192, 128],
            [128, 64, 128],
            [0, 0, 192],
            [128, 128, 0],
            [192, 128, 128],
            [64, 64, 128],
            [64, 0, 128],
            [64, 64, 0],
            [0, 128, 192],
        ],
    )

    @classmethod
    def get_label_map(cls, new_classes: tuple[str, ...] | list[str] | None = None) -> dict[int, int]:
        """Map label values to class indices; void becomes 255, which losses and metrics ignore."""
        return {**(super().get_label_map(new_classes) or {}), VOID: 255}
