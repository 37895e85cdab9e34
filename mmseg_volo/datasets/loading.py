"""Load images of any number of channels and masks of any kind, as steps of a pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform
from mmengine.registry import TRANSFORMS

from mmseg_volo.errors import UsageError
from mmseg_volo.io.multiband import array_of
from mmseg_volo.io.steps import MULTI_BAND_STEPS

LABEL_STEPS = ('LoadAnnotations', 'LoadMask')  # steps of a pipeline that read labels


@TRANSFORMS.register_module(name=[*MULTI_BAND_STEPS])
class LoadMultiBandImage(BaseTransform):
    """Load an image of any number of channels and any depth, each channel normalised: float32 (H, W, C).

    Args:
        mean: of each channel, in the file's units.
        std: of each channel.
        dtype: of the pixels; others are refused, as their units differ. Any if None.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], dtype: str | None = None):
        self.dtype = dtype
        self.mean = np.array(mean, np.float32)
        self.std = np.array(std, np.float32)

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Add the keys that mmcv's `LoadImageFromFile` adds.

        Pixels without data become 0, the mean. If some are without data in every channel, the key `missing`, bool
        (H, W), marks them.

        Args:
            results: with `img_path`, or with `img`, an array (H, W, C) or whatever else `array_of` takes.

        Raises:
            BadFileError, UsageError: the file cannot be read, or has other channels.
        """
        image = results.get('img')
        pixels, gone = array_of(results['img_path'] if image is None else image)
        if pixels.shape[2] != len(self.mean) or self.dtype not in (None, str(pixels.dtype)):
            raise UsageError(
                f'{results.get("img_path", "the array")} has {pixels.shape[2]} channels of {pixels.dtype}, expected '
                f'{len(self.mean)} of {self.dtype or "any type"}, as in training'
            )
        image = (pixels.astype(np.float32) - self.mean) / self.std
        if gone is not None:
            image[gone] = 0
            results['missing'] = gone.all(2)
        results.update(img=image, img_shape=image.shape[:2], ori_shape=image.shape[:2])
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(mean={self.mean.tolist()}, std={self.std.tolist()}, dtype={self.dtype})'


@TRANSFORMS.register_module()
class LoadMask(BaseTransform):
    """Load the mask of a `FolderDataset`'s item as class indices: mmseg's `LoadAnnotations` for any kind of mask."""

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Add `gt_seg_map`, uint8 (H, W), uint16 beyond 255 classes.

        Pixels that `LoadMultiBandImage` marked as missing are ignored. Images without a data set, as MMSegmentation's
        `inference_model` and `MMSegInferencer` pass them, have no mask and are returned unchanged.

        Raises:
            BadFileError: the mask cannot be read, or holds a code that is no class; names the file.
            UsageError: the item has no mask.
        """
        if results.keys().isdisjoint(('read_label', 'seg_map_path')):
            return results
        if 'seg_map_path' not in results:
            raise UsageError(
                f'{results["img_path"]} has no mask in its list, so it cannot be scored: `test --format-only --out '
                f'FOLDER` writes masks without scoring'
            )
        mask = results['read_label'](results['seg_map_path'])
        if (gone := results.pop('missing', None)) is not None:
            mask[gone] = np.iinfo(mask.dtype).max  # see `ignore_index`
        results['gt_seg_map'] = mask
        results['seg_fields'].append('gt_seg_map')
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}()'
