"""Predict one image: the same pixels and the same windows for every kind of file and array."""

from __future__ import annotations

import contextlib
import copy
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import torch
from mmseg.models import BaseSegmentor, SegDataPreProcessor
from mmseg.registry import TRANSFORMS
from mmseg.structures import SegDataSample
from numpy.typing import NDArray
from torch import Tensor

from mmseg_volo.datasets.loading import LABEL_STEPS
from mmseg_volo.errors import UsageError, describe
from mmseg_volo.io.convert import Source, to_path, to_rgb
from mmseg_volo.io.image import orientation_of
from mmseg_volo.io.multiband import array_of
from mmseg_volo.io.raster_pixels import OWN_VALUES, RasterPixels
from mmseg_volo.io.raster_reader import driver_of, is_georeferenced, open_any
from mmseg_volo.io.steps import MULTI_BAND_STEPS
from mmseg_volo.io.value_range import LOGGER, Tell
from mmseg_volo.models.segmentors.results import results
from mmseg_volo.models.segmentors.streaming import StreamingEncoderDecoder

# steps that leave the pixels as they are
PLAIN_STEPS = ('LoadImageFromFile', 'LoadRGBImage', 'PackSegInputs', *MULTI_BAND_STEPS, *LABEL_STEPS)
WHOLE = 2048 * 2048  # most pixels of an image that is predicted whole, without windows
IN_MEMORY = 8192 * 8192  # most pixels of an image that a test pipeline needs whole
DESCRIPTION_FAULTS = (
    AssertionError,
    AttributeError,
    IndexError,
    KeyError,
    RuntimeError,
    TypeError,
    ValueError,
    cv2.error,
)
DTYPE_MISMATCH = 'should be the same'  # torch's error if no transform or preprocessor converts an image to float
WINDOW = 1024  # size of windows if a checkpoint does not record the size of its training images

Pixels = NDArray[Any] | RasterPixels


@contextlib.contextmanager
def opened(
    model: BaseSegmentor,
    image: Source,
    bands: Sequence[int] | None = None,
    value_range: Sequence[float] | None = None,
    tell: Tell = LOGGER.warning,
) -> Iterator[Pixels]:
    """Open an image for `segment`.

    Args:
        model: from `mmseg_volo.load`.
        image: see `mmseg_volo.predict`.
        bands, value_range, tell: see `to_rgb`.

    Yields:
        `RasterPixels` of a georeferenced file, or of any TIFF if the model takes multi-band images; else uint8 RGB
        (H, W, 3), or for a multi-band model an array (H, W, C) with its own values.

    Raises:
        FileNotFoundError, UsageError: it is not an image, or not one that the model takes.
    """
    loading = loading_of(model)
    own_values = loading['type'] in MULTI_BAND_STEPS
    if own_values and value_range is not None:
        raise UsageError(OWN_VALUES)
    source, is_raster = _source(image)
    name = 'the image given as bytes' if isinstance(source, bytes) else str(source)
    with open_any(source) if is_raster else contextlib.nullcontext() as raster:
        if raster is not None and (is_georeferenced(raster) or own_values and orientation_of(source) == 1):
            try:
                yield RasterPixels(raster, loading, bands, value_range, device_of(model), name, tell)
            except Exception as error:
                if type(error).__module__.partition('.')[0] != 'rasterio':  # GDAL's own errors are not RasterioError
                    raise
                raise UsageError(f'{name} cannot be read: {error.__cause__ or error}') from error
            return
    if not own_values:
        yield to_rgb(source, bands, value_range, tell)
        return
    pixels, _ = array_of(source)
    if bands is not None:
        if max(bands) > pixels.shape[2]:
            raise UsageError(f'bands {list(bands)} were requested, but the image has {pixels.shape[2]}')
        pixels = pixels[..., [band - 1 for band in bands]]
    yield pixels


def _source(image: Source) -> tuple[Any, bool]:
    """Return the image, as Path or bytes if it is a file, and whether it is a TIFF or JPEG 2000 file."""
    if isinstance(image, (str, os.PathLike)):
        path = to_path(image)
        with path.open('rb') as file:
            return path, driver_of(file.read(12)) is not None
    if isinstance(image, (bytes, bytearray, memoryview)):
        return bytes(image), driver_of(bytes(image[:12])) is not None
    return image, False


def segment(
    model: BaseSegmentor,
    pixels: Pixels,
    maps: Sequence[str] = (),
    windows: int | None = None,
    tell: Tell | None = None,
) -> Iterator[tuple[slice, dict[str, Tensor]]]:
    """Predict one image, without changing the model.

    Args:
        model: from `mmseg_volo.load`.
        pixels: see `opened`.
        maps: maps to predict beside `pred_sem_seg`, any of `mmseg_volo.models.segmentors.test_cfg.OPTIONAL_MAPS`.
        windows: side in pixels of sliding windows at the image's full resolution, overlapping by a third. If None,
            `test_cfg` and the test pipeline apply; if these predict whole images at full resolution, an image of more
            than WHOLE pixels is predicted in windows of the size of the training images.
        tell: called with a message in that case.

    Yields:
        See `results`.

    Raises:
        UsageError: the image is too large for the model.
    """
    with _described(model):
        yield from _segment(model, pixels, maps, windows, tell)


@contextlib.contextmanager
def _described(model: BaseSegmentor) -> Iterator[None]:
    """Turn errors into a UsageError if an invalid description of the model in a checkpoint causes them."""
    try:
        yield
    except UsageError:
        raise
    except DESCRIPTION_FAULTS as error:
        source = getattr(model, 'described_by', None)
        if source is None or isinstance(error, RuntimeError) and DTYPE_MISMATCH not in str(error):
            raise
        raise UsageError(
            f'the model and test pipeline that {source} describes do not work on this image ({describe(error)}): give '
            f'the config of its training too, load(CONFIG, {source!r})'
        ) from error


def _segment(
    model: BaseSegmentor, pixels: Pixels, maps: Sequence[str], windows: int | None, tell: Tell | None
) -> Iterator[tuple[slice, dict[str, Tensor]]]:
    size = tuple(pixels.shape[1:] if isinstance(pixels, RasterPixels) else pixels.shape[:2])
    steps: Sequence[Mapping[str, Any]] = model.cfg.test_pipeline
    options = None
    if windows is None and not why_whole(model, steps) and _is_too_large(model, size):
        windows = trained_on(model)
        if tell is not None:
            tell(
                f'images of more than 4 million pixels are predicted in windows of {windows} pixels; '
                f'--window-size sets another size'
            )
    if windows is not None and isinstance(model, StreamingEncoderDecoder):
        stride = max(windows * 2 // 3, 1)
        options = replace(model.options, mode='slide', crop_size=(windows, windows), stride=(stride, stride))
        steps = [step for step in steps if step['type'] != 'Resize']
    if not isinstance(pixels, RasterPixels):
        yield from results(model, as_batch(steps, pixels), maps, options)
        return
    pixels.check()
    if why := why_whole(model, steps):
        if size[0] * size[1] > IN_MEMORY:
            windowed = f'--window-size {trained_on(model)} predicts in windows of that size, without resizing'
            remedy = windowed if isinstance(model, StreamingEncoderDecoder) else 'cut it into tiles'
            raise UsageError(f'{size[1]}x{size[0]} pixels are too many for {why} of the checkpoint: {remedy}')
        image = pixels.read().transpose(1, 2, 0)
        if pixels.normal is not None:
            steps = [dict(type='LoadImageFromNDArray'), *steps[1:]]
        yield from results(model, as_batch(steps, image), maps, options)
    else:
        sample = SegDataSample(metainfo=dict(ori_shape=size, img_shape=size))
        yield from results(model, dict(inputs=[pixels], data_samples=[sample]), maps, options)


def as_batch(steps: Sequence[Mapping[str, Any]], image: NDArray[Any]) -> dict[str, list[Any]]:
    """Return a batch of one image for a segmentor's `test_step`.

    Args:
        steps: steps of a test pipeline; those that read labels are skipped.
        image: uint8 RGB (H, W, 3); or an array for `LoadMultiBandImage` or `LoadImageFromNDArray`, if that is the first
            step.
    """
    kept = [copy.deepcopy(dict(step)) for step in steps if step['type'] not in LABEL_STEPS]
    if kept[0]['type'] not in (*MULTI_BAND_STEPS, 'LoadImageFromNDArray'):
        image = np.ascontiguousarray(image[..., ::-1])  # BGR, as mmseg's pipelines expect
        kept[0] = dict(type='LoadImageFromNDArray')
    data: Any = dict(img=image)
    for step in kept:
        # not `TRANSFORMS.build`, which depends on mmengine's default scope, a global of the process
        transform = TRANSFORMS.get(step.pop('type'))
        data = transform(**step)(data)
    return dict(inputs=[data['inputs']], data_samples=[data['data_samples']])


def why_whole(model: BaseSegmentor, steps: Sequence[Mapping[str, Any]]) -> str:
    """Return the names of what needs all pixels of an image at once, or ''."""
    if not isinstance(model, StreamingEncoderDecoder):
        return type(model).__name__
    if type(model.data_preprocessor) is not SegDataPreProcessor:
        return type(model.data_preprocessor).__name__
    return ', '.join(step['type'] for step in steps if step['type'] not in PLAIN_STEPS)


def _is_too_large(model: StreamingEncoderDecoder, size: Sequence[int]) -> bool:
    return model.options.mode != 'slide' and size[0] * size[1] > WHOLE


def trained_on(model: BaseSegmentor) -> int:
    """Return the side in pixels of windows like the model's training images."""
    size: Sequence[int] = model.cfg.model.get('data_preprocessor', {}).get('size') or [WINDOW]
    return max(min(size), 32)


def loading_of(model: BaseSegmentor) -> Mapping[str, Any]:
    """Return the first step of a model's test pipeline."""
    step: Mapping[str, Any] = model.cfg.test_pipeline[0]
    return step


def device_of(model: BaseSegmentor) -> torch.device:
    """Return the device of a model's parameters."""
    device: torch.device = next(model.parameters()).device
    return device


def mask_type(classes: int, masked: bool) -> tuple[str, int]:
    """Return the dtype of a mask, and its value where the image has no data."""
    return ('uint16', 65535) if classes > (255 if masked else 256) else ('uint8', 255)
