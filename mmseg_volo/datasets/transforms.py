"""Run mmseg's training pipeline, draw for draw and pixel for pixel, but compute only the pixels of the crop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cv2
import mmcv
import numpy as np
from mmcv.transforms import BaseTransform
from mmengine.registry import TRANSFORMS
from mmseg.datasets.transforms import PhotoMetricDistortion, RandomFlip

from mmseg_volo.datasets.cache import mapped
from mmseg_volo.errors import UsageError
from mmseg_volo.io.image import read_image, read_label
from mmseg_volo.io.steps import PHOTOMETRIC_STEPS

Box = tuple[int, int, int, int]  # first row, end of the rows, first column, end of the columns


@TRANSFORMS.register_module()
class LoadRGBImage(BaseTransform):
    """Load an image as predictions and `LoadRandomCrop` do: mmseg's `LoadImageFromFile` for kinds of files that OpenCV
    decodes differently (TIFF, JPEG 2000, GIF, AVIF; docs/images.md)."""

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Add `img`, uint8 BGR (H, W, 3), and its size.

        Raises:
            FileNotFoundError, UsageError: the file is missing or unreadable.
        """
        image = cv2.cvtColor(read_image(results['img_path']), cv2.COLOR_RGB2BGR)
        results.update(img=image, img_shape=image.shape[:2], ori_shape=image.shape[:2])
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}()'


@TRANSFORMS.register_module()
class LoadRandomCrop(BaseTransform):
    """Load an image with its label, resize both by a random ratio, and crop them: mmseg's `LoadImageFromFile`,
    `LoadAnnotations`, `RandomResize(keep_ratio=True)` and `RandomCrop` in one.

    It makes the same draws from NumPy's generator in the same order, so that the same seed gives the same pixels.
    Decoded copies of the files are used where `tools/prepare_data.py ... --cache` has made them.

    Args:
        scale: (width, height) that the ratio multiplies; the image then fits into it.
        ratio_range: smallest and largest ratio.
        crop_size: (height, width) of the crop; smaller where the resized image is.
        cat_max_ratio: another crop is drawn, up to ten times, while a single class has at least this share of it.
        ignore_index: label value that does not count for that share.
        use_cache: whether to use decoded copies.
    """

    def __init__(
        self,
        scale: tuple[int, int],
        ratio_range: tuple[float, float],
        crop_size: tuple[int, int],
        cat_max_ratio: float = 1.0,
        ignore_index: int = 255,
        use_cache: bool = True,
    ):
        self.scale = tuple(scale)
        self.ratio_range = tuple(ratio_range)
        self.crop_size = tuple(crop_size)
        self.cat_max_ratio = cat_max_ratio
        self.ignore_index = ignore_index
        self.use_cache = use_cache

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Add the keys that the four transforms of mmseg add.

        Args:
            results: an item of a data set: `img_path`, `seg_map_path`, `label_map`, `reduce_zero_label`; a
                `FolderDataset` adds `read_label`, the function that reads its labels.

        Raises:
            FileNotFoundError, UsageError: a file is missing, unreadable, or the sizes differ.
        """
        image, label = self._load(results)
        height, width = image.shape[:2]
        low, high = self.ratio_range
        ratio = np.random.random_sample() * (high - low) + low
        scale = int(self.scale[0] * ratio), int(self.scale[1] * ratio)
        size = mmcv.rescale_size((width, height), scale)
        table = label_table(results)
        box, label = self._choose_crop(label, size, table)
        results['img'] = cv2.cvtColor(resized_part(image, size, box), cv2.COLOR_RGB2BGR)
        results['gt_seg_map'] = label
        results['seg_fields'].append('gt_seg_map')
        results.update(ori_shape=(height, width), img_shape=label.shape, scale=scale, keep_ratio=True)
        results['scale_factor'] = size[0] / width, size[1] / height
        return results

    def _load(self, results: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        """Return image uint8 (H, W, 3) in RGB and label uint8 or uint16 (H, W), decoded or mapped into memory."""
        paths, arrays = (results['img_path'], results['seg_map_path']), []
        own = results.get('read_label')
        for path, read in zip(paths, (read_image, own or read_label), strict=True):
            array = mapped(path) if self.use_cache and read is not own else None
            arrays.append(read(path) if array is None else array)
        image, label = arrays
        if image.shape[:2] != label.shape:
            sizes = ['x'.join(map(str, array.shape[1::-1])) for array in arrays]
            raise UsageError(f'{paths[1]} is {sizes[1]}, its image {paths[0]} {sizes[0]}: they must agree')
        return image, label

    def _choose_crop(
        self, label: np.ndarray, size: tuple[int, int], table: np.ndarray | None
    ) -> tuple[Box, np.ndarray]:
        """Draw a crop of the resized image (width, height); return its box and the label there."""
        columns, rows = (nearest_index(old, new) for old, new in zip(label.shape[::-1], size, strict=True))
        tries = 10 if self.cat_max_ratio < 1 else 0
        for left in range(tries, -1, -1):
            box = self._draw_box(size)
            crop = label[rows[box[0] : box[1]]].take(columns[box[2] : box[3]], axis=1, mode='clip')
            if table is not None:
                crop = cv2.LUT(crop, table)
            if not left or self._is_varied(crop):
                return box, crop
        raise AssertionError('the last crop is always taken')

    def _draw_box(self, size: tuple[int, int]) -> Box:
        (width, height), (rows, columns) = size, self.crop_size
        top = np.random.randint(0, max(height - rows, 0) + 1)
        left = np.random.randint(0, max(width - columns, 0) + 1)
        return top, min(top + rows, height), left, min(left + columns, width)

    def _is_varied(self, label: np.ndarray) -> bool:
        """Whether no class has too large a share of a crop."""
        values = 256 if label.dtype == np.uint8 else 65536
        counts = cv2.calcHist([label], [0], None, [values], [0, values]).ravel().astype(np.int64)
        counts[self.ignore_index] = 0
        return bool(np.count_nonzero(counts) > 1 and counts.max() / counts.sum() < self.cat_max_ratio)

    def __repr__(self) -> str:
        names = ('scale', 'ratio_range', 'crop_size', 'cat_max_ratio', 'ignore_index', 'use_cache')
        return f'{type(self).__name__}({", ".join(f"{name}={getattr(self, name)}" for name in names)})'


def label_table(results: Mapping[str, Any]) -> np.ndarray | None:
    """Tabulate how a data set maps label values (`reduce_zero_label`, then `label_map`): uint8 (256,), None if not."""
    reduce, mapping = results.get('reduce_zero_label'), results.get('label_map')
    if not reduce and mapping is None:
        return None
    table = np.arange(256)
    if reduce:
        table = np.where(np.isin(table, (0, 255)), 255, table - 1)
    after = np.arange(256)
    for old, new in (mapping or {}).items():
        if 0 <= old < 256:
            after[old] = new
    return after[table].astype(np.uint8)


def nearest_index(old: int, new: int) -> np.ndarray:
    """Return which of `old` pixels each of `new` pixels takes in nearest resizing: (new,), as OpenCV computes it."""
    index = np.arange(old, dtype=np.float32)[None]
    return cv2.resize(index, (new, 1), interpolation=cv2.INTER_NEAREST)[0].astype(np.intp)


def resized_part(image: np.ndarray, size: tuple[int, int], box: Box) -> np.ndarray:
    """Resize an image bilinearly, but only the pixels in a box, from the image above and left of the box's end.

    OpenCV computes a pixel from its position and the scale alone, so a part that starts at the image's origin gives the
    same pixels with the same scale. (In a part that starts elsewhere, positions would be rounded differently.)

    Args:
        image: uint8 (H, W, 3).
        size: (width, height) of the whole resized image.
        box: the part of the resized image to compute.

    Returns:
        uint8 (rows, columns, 3), a view.
    """
    top, bottom, left, right = box
    (height, width), (fx, fy) = image.shape[:2], (size[0] / image.shape[1], size[1] / image.shape[0])
    corner = image[: min(height, int(bottom / fy) + 3), : min(width, int(right / fx) + 3)]
    unchanged = all(abs(n * f - n) <= 0.5 for n, f in zip(corner.shape[1::-1], (fx, fy), strict=True))
    if unchanged and size != (width, height):  # OpenCV would copy it without resizing
        corner = image
    resized = cv2.resize(corner, None, fx=fx, fy=fy, interpolation=cv2.INTER_LINEAR)
    return resized[top:bottom, left:right]


@TRANSFORMS.register_module()
class ContiguousRandomFlip(RandomFlip):
    """Flip as mmseg's `RandomFlip`, with the same arguments, draws and pixels, into a new array.

    mmseg's is a view that reads memory backwards, which every later step would copy slowly.
    """

    def _flip(self, results: dict[str, Any]) -> None:
        image = results['img']
        super()._flip(results)
        code = dict(horizontal=1, vertical=0, diagonal=-1)[results['flip_direction']]
        results['img'] = cv2.flip(image, code)


@TRANSFORMS.register_module(name=[*PHOTOMETRIC_STEPS])
class FastPhotoMetricDistortion(PhotoMetricDistortion):
    """Distort as mmseg's `PhotoMetricDistortion`, with the same arguments, draws and pixels, by tables of values."""

    def convert(self, img: np.ndarray, alpha: float = 1, beta: float = 0) -> np.ndarray:
        """Compute uint8 `img * alpha + beta`, clipped to 0 and 255 and rounded down."""
        return cv2.LUT(img, _linear(alpha, beta))

    def saturation(self, img: np.ndarray) -> np.ndarray:
        """Change the saturation of uint8 BGR (H, W, 3) randomly."""
        if np.random.randint(2):
            alpha = np.random.uniform(self.saturation_lower, self.saturation_upper)
            img = _in_hsv(img, 1, _linear(alpha, 0))
        return img

    def hue(self, img: np.ndarray) -> np.ndarray:
        """Shift the hue of uint8 BGR (H, W, 3) randomly."""
        if np.random.randint(2):
            shift = np.random.randint(-self.hue_delta, self.hue_delta)
            img = _in_hsv(img, 0, ((np.arange(256) + shift) % 180).astype(np.uint8))
        return img

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Distort `img`; the result lies in memory channel by channel, the layout that `PackSegInputs` needs."""
        image = super().transform(results)['img']
        planes = np.empty((3, *image.shape[:2]), np.uint8)
        cv2.split(image, [*planes])
        results['img'] = planes.transpose(1, 2, 0)
        return results


def _linear(alpha: float, beta: float) -> np.ndarray:
    return np.clip(np.arange(256, dtype=np.float32) * alpha + beta, 0, 255).astype(np.uint8)


def _in_hsv(image: np.ndarray, channel: int, table: np.ndarray) -> np.ndarray:
    """Apply a table to one channel of hue, saturation, value."""
    hsv = cv2.cvtColor(image, cv2.COLOR_BGR2HSV)
    cv2.insertChannel(cv2.LUT(cv2.extractChannel(hsv, channel), table), hsv, channel)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)
