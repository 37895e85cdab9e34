"""One image through one segmentor: the same pixels and the same windows, whatever holds the image."""

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
from mmseg.models import SegDataPreProcessor
from mmseg.registry import TRANSFORMS
from mmseg.structures import SegDataSample
from torch import Tensor, nn

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
WHOLE = 2048 * 2048  # pixels that a network which sees images whole is shown at once
IN_MEMORY = 8192 * 8192  # pixels that are read at once for a test pipeline that needs them all
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
ODD_TYPES = 'should be the same'  # torch says so of images that no step and no preprocessor has made numbers
WINDOW = 1024  # where a checkpoint does not say what its network was trained on

Pixels = np.ndarray | RasterPixels


@contextlib.contextmanager
def opened(
    model: nn.Module,
    image: Source,
    bands: Sequence[int] | None = None,
    value_range: Sequence[float] | None = None,
    tell: Tell = LOGGER.warning,
) -> Iterator[Pixels]:
    """What `segment` takes of an image.

    Args:
        model: from `mmseg_volo.load`.
        image: see `mmseg_volo.predict`.
        bands, value_range, tell: see `to_rgb`.

    Yields:
        `RasterPixels` of a georeferenced file, or of any TIFF where the network takes other images than RGB; else
        uint8 RGB (H, W, 3), or an array (H, W, C) as it is.

    Raises:
        FileNotFoundError, UsageError: it is no image, or none for this network.
    """
    loading = loading_of(model)
    own_values = loading['type'] in MULTI_BAND_STEPS
    if own_values and value_range is not None:
        raise UsageError(OWN_VALUES)
    image, is_raster = _source(image)
    name = 'the image given as bytes' if isinstance(image, bytes) else str(image)
    with open_any(image) if is_raster else contextlib.nullcontext() as raster:
        if raster is not None and (is_georeferenced(raster) or own_values and orientation_of(image) == 1):
            try:
                yield RasterPixels(raster, loading, bands, value_range, device_of(model), name, tell)
            except Exception as error:
                if type(error).__module__.partition('.')[0] != 'rasterio':  # GDAL's own errors are no RasterioError
                    raise
                raise UsageError(f'{name} cannot be read: {error.__cause__ or error}') from error
            return
    if not own_values:
        yield to_rgb(image, bands, value_range, tell)
        return
    pixels, _ = array_of(image)
    if bands is not None:
        if max(bands) > pixels.shape[2]:
            raise UsageError(f'bands {list(bands)} were asked for, the image has {pixels.shape[2]}')
        pixels = pixels[..., [band - 1 for band in bands]]
    yield pixels


def _source(image: Source) -> tuple[Any, bool]:
    """A path or bytes as such, anything else as it is, and whether it is a TIFF or JPEG 2000 file."""
    if isinstance(image, (str, os.PathLike)):
        image = to_path(image)
        with image.open('rb') as file:
            return image, driver_of(file.read(12)) is not None
    if isinstance(image, (bytes, bytearray, memoryview)):
        return bytes(image), driver_of(bytes(image[:12])) is not None
    return image, False


def segment(
    model: nn.Module, pixels: Pixels, maps: Sequence[str] = (), windows: int | None = None, tell: Tell | None = None
) -> Iterator[tuple[slice, dict[str, Tensor]]]:
    """Predicts one image; nothing about the model is changed meanwhile.

    Args:
        model: from `mmseg_volo.load`.
        pixels: see `opened`.
        maps: what is wanted beside `pred_sem_seg`, any of `segmentors.options.MAPS`.
        windows: side in pixels of the windows to look through at the image's own size, overlapping by a third. If None
            what `test_cfg` and the test pipeline say holds; where they show the network whole images at their own size,
            one of more than WHOLE pixels is seen through windows of the size that it was trained on.
        tell: takes a sentence when that is so.

    Yields:
        See `results`.

    Raises:
        UsageError: the image is too large for the model.
    """
    with _described(model):
        yield from _segment(model, pixels, maps, windows, tell)


@contextlib.contextmanager
def _described(model: nn.Module) -> Iterator[None]:
    """Inside, what parts make of the odd description that a checkpoint has of its model is said as such."""
    try:
        yield
    except UsageError:
        raise
    except DESCRIPTION_FAULTS as error:
        source = getattr(model, 'described_by', None)
        if source is None or isinstance(error, RuntimeError) and ODD_TYPES not in str(error):
            raise
        raise UsageError(
            f'the model and test pipeline that {source} describes do not work on this image ({describe(error)}): give '
            f'the config of its training too, load(CONFIG, {source!r})'
        ) from error


def _segment(
    model: nn.Module, pixels: Pixels, maps: Sequence[str], windows: int | None, tell: Tell | None
) -> Iterator[tuple[slice, dict[str, Tensor]]]:
    size = tuple(pixels.shape[1:] if isinstance(pixels, RasterPixels) else pixels.shape[:2])
    steps, options = model.cfg.test_pipeline, None
    if windows is None and not why_whole(model, steps) and _is_too_large(model, size):
        windows = trained_on(model)
        if tell is not None:
            tell(f'images of more than 4 million pixels are seen through windows of {windows} (others: --windows)')
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
            remedy = f'--windows {trained_on(model)} leaves resizing out and looks through windows of that size'
            remedy = remedy if isinstance(model, StreamingEncoderDecoder) else 'cut it into tiles'
            raise UsageError(f'{size[1]}x{size[0]} pixels are too many for {why} of the checkpoint: {remedy}')
        image = pixels.read().transpose(1, 2, 0)
        if pixels.normal is not None:
            steps = [dict(type='LoadImageFromNDArray'), *steps[1:]]
        yield from results(model, as_batch(steps, image), maps, options)
    else:
        sample = SegDataSample(metainfo=dict(ori_shape=size, img_shape=size))
        yield from results(model, dict(inputs=[pixels], data_samples=[sample]), maps, options)


def as_batch(steps: Sequence[Mapping[str, Any]], image: np.ndarray) -> dict[str, list]:
    """What a segmentor's `test_step` takes.

    Args:
        steps: of a test pipeline; those that read labels are left out.
        image: uint8 RGB (H, W, 3), or what `LoadMultiBandImage` or `LoadImageFromNDArray` takes, if it is the first
            step.
    """
    kept = [copy.deepcopy(dict(step)) for step in steps if step['type'] not in LABEL_STEPS]
    if kept[0]['type'] not in (*MULTI_BAND_STEPS, 'LoadImageFromNDArray'):
        image = np.ascontiguousarray(image[..., ::-1])  # BGR, as mmseg's pipelines have it
        kept[0] = dict(type='LoadImageFromNDArray')
    data: Any = dict(img=image)
    for step in kept:
        # not by `TRANSFORMS.build`: that looks where mmengine's default scope says, which is the whole process's
        transform = TRANSFORMS.get(step.pop('type'))
        data = transform(**step)(data)
    return dict(inputs=[data['inputs']], data_samples=[data['data_samples']])


def why_whole(model: nn.Module, steps: Sequence[Mapping[str, Any]]) -> str:
    """What needs all pixels of an image at once; empty if nothing does."""
    if not isinstance(model, StreamingEncoderDecoder):
        return type(model).__name__
    if type(model.data_preprocessor) is not SegDataPreProcessor:
        return type(model.data_preprocessor).__name__
    return ', '.join(step['type'] for step in steps if step['type'] not in PLAIN_STEPS)


def _is_too_large(model: StreamingEncoderDecoder, size: Sequence[int]) -> bool:
    return model.options.mode != 'slide' and size[0] * size[1] > WHOLE


def trained_on(model: nn.Module) -> int:
    """Side in pixels of the windows that a network is used to."""
    size = model.cfg.model.get('data_preprocessor', {}).get('size') or [WINDOW]
    return max(min(size), 32)


def loading_of(model: nn.Module) -> Mapping[str, Any]:
    """The first step of a model's test pipeline."""
    return model.cfg.test_pipeline[0]


def device_of(model: nn.Module) -> torch.device:
    """Where a model is."""
    return next(model.parameters()).device


def mask_type(classes: int, masked: bool) -> tuple[str, int]:
    """dtype of a mask, and its value where the image has no data."""
    return ('uint16', 65535) if classes > (255 if masked else 256) else ('uint8', 255)
