"""Inference in two calls: `model = load(...)`, `predict(model, image)`.

mmseg, which takes seconds to import, is imported by these calls: importing this module takes little more than torch.
"""

from __future__ import annotations

import copy
import os
import threading
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import DefaultScope
from PIL import Image
from torch import Tensor, nn

from mmseg_volo.errors import UsageError, describe
from mmseg_volo.io.convert import Source
from mmseg_volo.io.model_spec import config_of, dataset_meta_of
from mmseg_volo.io.text_files import hidden
from mmseg_volo.io.value_range import LOGGER, Tell
from mmseg_volo.io.weights import read_source, strict_load, unwrap_state_dict
from mmseg_volo.utils.forks import about_to_compute

Weights = str | Path
_BUILDING = threading.Lock()  # mmengine's default scope is the whole process's
BUILDING_FAULTS = (AssertionError, AttributeError, KeyError, TypeError, ValueError)
CHECKPOINT_SUFFIXES = ('.pth', '.pt', '.tar', '.safetensors')


@dataclass(frozen=True)
class Prediction:
    """What `predict` returns."""

    mask: np.ndarray  # (H, W) class indices, of the image's size; uint8, uint16 beyond 256 classes; see `predict`
    classes: Sequence[str]
    palette: Sequence[Sequence[int]]  # RGB, one per class
    # what was asked for, float32
    confidence: np.ndarray | None = None  # (H, W) probability of the class that was taken
    entropy: np.ndarray | None = None  # (H, W) in nats
    probability: np.ndarray | None = None  # (C, H, W) of each class; of one channel, that of the foreground


def load(
    config_or_checkpoint: Weights | Config,
    checkpoint: Weights | None = None,
    device: str | None = None,
    optimize: bool = True,
    *,
    bf16: bool = False,
) -> nn.Module:
    """Builds a segmentor for inference and loads its weights, strictly and without executing anything in the file.

    Args:
        config_or_checkpoint: a config (path, name of a shipped one, or `Config`), or a checkpoint that `tools/train.py`
            or `tools/weights.py convert` wrote, which knows its model, classes and colours; its path or https://...
        checkpoint: the weights, when a config was given; without it they are random.
        device: e.g. 'cuda:0', 'cpu'; the GPU if None and there is one.
        optimize: whether a segmentor with one of our backbones is prepared to predict faster on a CPU, see
            `mmseg_volo.models.cpu.prepare`; masks may then differ in one pixel of a thousand.
        bf16: whether it predicts in bfloat16 in place of float32: 1.8 to 1.9 times faster on an AMD EPYC with
            avx512_bf16 (VOLO-D1, CAFormer-S18, CoAtNet-0); a processor or GPU without units for it takes longer, which
            is a warning. Weights stay in float32, and pixels whose classes are nearly even may change class.

    Returns:
        The segmentor in eval mode, with `cfg` and `dataset_meta`.

    Raises:
        FileNotFoundError, ValueError: a file is missing, is no config or checkpoint, or does not fit the model; or bf16
            is asked for on a device that is neither a CPU nor CUDA's.
    """
    from mmseg_volo.models.cpu import can_optimize, optimize_for_cpu, use_bf16

    about_to_compute()
    cfg, weights, checkpoint, given = _read(config_or_checkpoint, checkpoint)
    tensors = None if weights is None else unwrap_state_dict(weights, str(checkpoint))
    model = _build(cfg, given, tensors if checkpoint == given else None)
    if tensors is not None:
        strict_load(model, tensors, str(checkpoint))
        if checkpoint != given:  # the config is another one than the checkpoint's own
            _compare_pixels(model, cfg, checkpoint, weights)
    model.cfg, model.described_by = cfg, given if checkpoint == given else None
    model.dataset_meta = dataset_meta_of(weights or {}, str(checkpoint)) or _dataset_meta(cfg, given)
    if (count := len(model.dataset_meta['classes'])) != model.num_classes:
        raise UsageError(f'{given}: the model tells {model.num_classes} classes apart, but {count} are named')
    if odd := next((name for name in model.dataset_meta['classes'] if hidden(str(name))), None):
        raise UsageError(f'{given}: names of classes are plain text, {odd!r} has characters that cannot be shown')
    _to_device(model, device).eval()
    if optimize and next(model.parameters()).device.type == 'cpu' and can_optimize(model):
        optimize_for_cpu(model)
    if bf16:
        use_bf16(model)
    return model


def _to_device(model: nn.Module, device: str | None) -> nn.Module:
    try:
        return model.to(device or ('cuda' if torch.cuda.is_available() else 'cpu'))
    except (RuntimeError, AssertionError) as error:
        reason = ' '.join(str(error).split('\n')[0].split())
        raise UsageError(f"device is one of this machine, e.g. 'cpu' or 'cuda:0', got {device!r} ({reason})") from error


def _read(
    config_or_checkpoint: Weights | Config, checkpoint: Weights | None
) -> tuple[Config, dict[str, Any] | None, Weights | None, str]:
    """What `load` is given: a config, the content of a checkpoint, its name, and what to call the first argument."""
    from mmseg_volo.config import load_config

    if isinstance(config_or_checkpoint, Config):
        cfg, given = copy.deepcopy(config_or_checkpoint), str(config_or_checkpoint.filename or 'the config')
    elif (given := str(config_or_checkpoint)).endswith(CHECKPOINT_SUFFIXES):
        if checkpoint is not None:
            raise UsageError(f'expected a config and a checkpoint, got two checkpoints: {given} and {checkpoint}')
        weights = read_source(given)
        return config_of(weights, given), weights, given, given
    else:
        cfg = load_config(given)
    return cfg, None if checkpoint is None else read_source(checkpoint), checkpoint, given


def _compare_pixels(model: nn.Module, cfg: Config, checkpoint: Weights, weights: Mapping[str, Any]) -> None:
    from mmseg_volo.models.normalisation import applied_normalisation, expected_normalisation, mismatch, test_steps

    given = applied_normalisation(model, cfg.get('test_pipeline') or test_steps(cfg))
    if sentence := mismatch(checkpoint, expected_normalisation(checkpoint, weights), given):
        warnings.warn(sentence, stacklevel=3)


def _build(cfg: Config, given: str, described: Mapping[str, Tensor] | None) -> nn.Module:
    """The model of a config; `described`: the weights of a checkpoint that says itself what it is for."""
    from mmengine.model import revert_sync_batchnorm
    from mmseg.registry import MODELS, TRANSFORMS

    import mmseg_volo.datasets  # noqa: F401, registers the steps of pipelines
    import mmseg_volo.models.segmentors  # noqa: F401, registers whatever models are made of
    from mmseg_volo.io.allowed.size import NoLargerThan, TooLarge

    _without_init_cfg(cfg.model)
    faults = BUILDING_FAULTS if described is None else (Exception,)  # whatever parts make of odd arguments
    try:
        with _mmseg_scope(), nullcontext() if described is None else NoLargerThan(described.values()):
            for step in () if described is None else cfg.get('test_pipeline', ()):
                TRANSFORMS.build(step)
            return revert_sync_batchnorm(MODELS.build(cfg.model))
    except TooLarge:
        raise UsageError(f'{given} describes a model that is much larger than its weights: get the file anew') from None
    except faults as error:
        raise UsageError(f'the model of {given} cannot be built: {describe(error)}') from error


def _renew() -> None:
    global _BUILDING
    _BUILDING = threading.Lock()


if hasattr(os, 'register_at_fork'):  # a thread that held it is not in the child
    os.register_at_fork(after_in_child=_renew)


@contextmanager
def _mmseg_scope() -> Iterator[None]:
    """Inside, parts are looked up among mmseg's; one thread at a time, and afterwards the scope is what it was."""
    with _BUILDING, DefaultScope.overwrite_default_scope('mmseg'):
        yield


def _without_init_cfg(model: ConfigDict) -> None:
    """A trained checkpoint holds the backbone too: its ImageNet weights need not be fetched."""
    for part in model.values():
        if isinstance(part, Mapping) and 'init_cfg' in part:
            part['init_cfg'] = None


def _dataset_meta(cfg: Config, given: str) -> dict[str, Any]:
    """Classes and colours from the data set that the config names, without looking at its files."""
    if 'test_dataloader' not in cfg:
        raise UsageError(f'{given} does not say which classes it is for: give its config too, load(CONFIG, {given!r})')
    from mmseg.registry import DATASETS

    with _mmseg_scope():
        dataset = DATASETS.build({**cfg.test_dataloader.dataset, 'pipeline': [], 'lazy_init': True})
    return dataset.metainfo


def predict(
    model: nn.Module,
    image: Source,
    maps: Sequence[str] = (),
    *,
    bands: Sequence[int] | None = None,
    value_range: Sequence[float] | None = None,
    windows: int | None = None,
    tell: Tell = LOGGER.warning,
) -> Prediction:
    """Segments one image, as `mmseg-volo predict` does. Threads may share a model.

    Args:
        model: from `load`; also as `torch.compile` made it, or in a wrapper such as `nn.DataParallel`.
        image: a path, the bytes of a file, a PIL image, an array (H, W, C) or a tensor (C, H, W); docs/images.md has
            the rules. Where georeferenced files have no data the mask is 255 (65535 beyond 255 classes).
        maps: what else is wanted, any of 'confidence', 'entropy', 'probability'.
        bands: which channels are red, green and blue, counted from 1; those that are said to be if None.
        value_range: what is black and what is white, instead of the rules.
        windows: side in pixels of the windows to look through at the image's own size; see `segment`.
        tell: takes a sentence about what is odd and taken all the same.

    Raises:
        FileNotFoundError, ValueError: it is no image, or the model cannot predict as it is, see `given.segmentor`.
    """
    from mmseg_volo.inference.options import Options
    from mmseg_volo.inference.segment import mask_type, opened, segment
    from mmseg_volo.io.raster_pixels import RasterPixels
    from mmseg_volo.models.segmentors.strips import assemble
    from mmseg_volo.models.segmentors.test_cfg import OPTIONAL_MAPS
    from mmseg_volo.models.segmentors.unwrap import unwrap_segmentor

    if isinstance(maps, str) or not set(maps) <= set(OPTIONAL_MAPS):
        raise UsageError(f'maps must be a list of some of {OPTIONAL_MAPS}, got {maps!r}')
    Options(bands=bands, value_range=value_range, windows=windows)
    model = unwrap_segmentor(model)
    classes, palette = (model.dataset_meta[k] for k in ('classes', 'palette'))
    with torch.inference_mode(), opened(model, image, bands, value_range, tell) as pixels:
        raster = pixels if isinstance(pixels, RasterPixels) else None
        size = pixels.shape[:2] if raster is None else tuple(pixels.shape[1:])
        found = assemble(segment(model, pixels, maps, windows, tell), size)
        gone = ~raster.valid() if raster is not None and raster.masked else None
    dtype, nodata = mask_type(len(classes), gone is not None)
    mask = found.pop('pred_sem_seg')[0].cpu().numpy().astype(dtype)
    more = {name: values.float().cpu().numpy() for name, values in found.items()}
    if gone is not None:
        for values, nothing in ((mask[None], nodata), *((values, np.nan) for values in more.values())):
            values[:, gone] = nothing
    maps = {name: values if name == 'probability' else values[0] for name, values in more.items()}
    return Prediction(mask, classes, palette, **maps)


def predict_each(
    model: nn.Module, images: Iterable[Source], maps: Sequence[str] = (), **options: Any
) -> Iterator[Prediction | ValueError | OSError]:
    """Segments many images; one that cannot be read gives its error, and the others go on.

    Args:
        model: from `load`.
        images, maps, options: see `predict`.

    Yields:
        What `predict` returns or raises, in the order of the images.

    Raises:
        UsageError: one image was given instead of several, or the model cannot predict as it is.
    """
    from mmseg_volo.inference.options import Options
    from mmseg_volo.models.segmentors.unwrap import unwrap_segmentor

    one = isinstance(images, str | bytes | bytearray | memoryview | os.PathLike | Image.Image)
    if one or getattr(images, 'ndim', 4) != 4:  # the rows of an array would be taken for grey images
        raise UsageError(f'expected several images, e.g. in a list, got {type(images).__name__}: predict takes one')
    Options(**{name: value for name, value in options.items() if name != 'tell'})
    return _predict_each(unwrap_segmentor(model), images, maps, options)


def _predict_each(
    model: nn.Module, images: Iterable[Source], maps: Sequence[str], options: Mapping[str, Any]
) -> Iterator[Prediction | ValueError | OSError]:
    for image in images:
        try:
            yield predict(model, image, maps, **options)
        except (ValueError, OSError) as error:
            yield error
