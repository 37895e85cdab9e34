"""Steps of a pipeline that load images of any kind, and the masks that lists name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform
from mmengine.registry import TRANSFORMS

from mmseg_volo.errors import UsageError
from mmseg_volo.io.multiband import array_of

LABEL_STEPS = ('LoadAnnotations', 'LoadMask')  # of a pipeline: what reads labels


@TRANSFORMS.register_module(name=['LoadMultiBandImage', 'LoadBands'])
class LoadMultiBandImage(BaseTransform):
    """Loads an image of any number of channels and any depth, each channel normalised: float32 (H, W, C).

    Args:
        mean: of each channel, in the file's units.
        std: of each channel.
        dtype: of the pixels; others are refused, as their units are others. Any if None.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], dtype: str | None = None):
        self.dtype = dtype
        self.mean = np.array(mean, np.float32)
        self.std = np.array(std, np.float32)

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Adds what mmcv's `LoadImageFromFile` adds. Pixels without data are 0, the mean; where that is so in all
        channels, `missing`, bool (H, W), says it.

        Args:
            results: with `img_path`, or with `img`, an array (H, W, C) or whatever else `array_of` takes.

        Raises:
            BadFile, UsageError: the file cannot be read, or has other channels.
        """
        given = results.get('img')
        pixels, gone = array_of(results['img_path'] if given is None else given)
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
    """Loads the mask of a `FolderDataset`'s item as class indices: mmseg's `LoadAnnotations`, of any kind of file."""

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Adds `gt_seg_map`, uint8 (H, W), uint16 beyond 255 classes.

        Where the image has no data, as `LoadMultiBandImage` has found, the mask is ignored. An image that is no data
        set's item, which MMSegmentation's `inference_model` and `MMSegInferencer` hand in, has no mask and stays as it
        is.

        Raises:
            BadFile: it cannot be read, or holds what is no class; names the file.
            UsageError: the item has none.
        """
        if results.keys().isdisjoint(('read_label', 'seg_map_path')):
            return results
        if 'seg_map_path' not in results:
            raise UsageError(
                f'{results["img_path"]} has no mask in its list, to be scored with: `test --format-only --out FOLDER` '
                f'writes masks and scores nothing'
            )
        mask = results['read_label'](results['seg_map_path'])
        if (gone := results.pop('missing', None)) is not None:
            mask[gone] = np.iinfo(mask.dtype).max  # see `ignore_index`
        results['gt_seg_map'] = mask
        results['seg_fields'].append('gt_seg_map')
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}()'
