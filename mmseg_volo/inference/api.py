"""Load a model and predict: `model = load(...)`, `predict(model, image)`.

mmseg, which takes seconds to import, is imported by these calls: importing this module costs little more than torch.
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
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import DefaultScope
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from mmseg_volo.errors import UsageError, describe
from mmseg_volo.io.convert import Source
from mmseg_volo.io.model_spec import config_of, dataset_meta_of
from mmseg_volo.io.text_files import hidden
from mmseg_volo.io.value_range import LOGGER, Tell
from mmseg_volo.io.weights import read_source, strict_load, unwrap_state_dict
from mmseg_volo.utils.forks import about_to_compute

if TYPE_CHECKING:
    from mmseg.models import BaseSegmentor

Weights = str | Path
_BUILDING = threading.Lock()  # mmengine's default scope is global to the process
BUILDING_FAULTS = (AssertionError, AttributeError, KeyError, TypeError, ValueError)
CHECKPOINT_SUFFIXES = ('.pth', '.pt', '.tar', '.safetensors')


@dataclass(frozen=True)
class Prediction:
    """The mask of an image, and the maps that `predict` was asked for."""

    mask: NDArray[Any]  # (H, W) class indices, of the image's size; uint8, uint16 beyond 256 classes; see `predict`
    classes: Sequence[str]
    palette: Sequence[Sequence[int]]  # RGB, one per class
    # the requested maps; None if not requested
    confidence: NDArray[np.float32] | None = None  # (H, W) probability of the predicted class
    entropy: NDArray[np.float32] | None = None  # (H, W) in nats
    probability: NDArray[np.float32] | None = None  # (C, H, W) of each class; (1, H, W) of the foreground if binary


def load(
    config_or_checkpoint: Weights | Config,
    checkpoint: Weights | None = None,
    device: str | None = None,
    optimize: bool = True,
    *,
    bf16: bool = False,
) -> BaseSegmentor:
    """Build a segmentor for inference and load its weights, strictly and without executing anything in the file.

    Args:
        config_or_checkpoint: a config (path, name of a shipped one, or `Config`), or the path or https:// address of a
            checkpoint that `tools/train.py` or `tools/weights.py convert` wrote, which describes its model, classes
            and colours.
        checkpoint: the weights, if a config is given; random weights if None.
        device: e.g. 'cuda:0', 'cpu'; if None the GPU where there is one.
        optimize: whether to make a segmentor with one of our backbones predict faster on a CPU, see
            `mmseg_volo.models.cpu.optimize_for_cpu`; masks may then differ in one pixel of a thousand.
        bf16: whether to predict in bfloat16 instead of float32: 1.8 to 1.9 times faster on an AMD EPYC with
            avx512_bf16 (VOLO-D1, CAFormer-S18, CoAtNet-0); slower, with a warning, on hardware without bfloat16.
            Weights stay in float32, and pixels where two classes are almost equally likely may change class.

    Returns:
        The segmentor in eval mode, with the attributes `cfg` and `dataset_meta`.

    Raises:
        FileNotFoundError, ValueError: a file is missing, is not a config or checkpoint, or does not fit the model; or
            `bf16` is set on a device that is neither a CPU nor a CUDA GPU.
    """
    from mmseg_volo.models.cpu import can_optimize, optimize_for_cpu, use_bf16

    about_to_compute()
    cfg, content, checkpoint, source = _read(config_or_checkpoint, checkpoint)
    own = checkpoint == source  # the checkpoint describes its model itself
    tensors = None if content is None else unwrap_state_dict(content, str(checkpoint))
    model = _build(cfg, source, tensors if own else None)
    if content is not None and tensors is not None:
        strict_load(model, tensors, str(checkpoint))
        if not own:
            _compare_pixels(model, cfg, str(checkpoint), content)
    model.cfg, model.described_by = cfg, source if own else None
    model.dataset_meta = dataset_meta_of(content or {}, str(checkpoint)) or _dataset_meta(cfg, source)
    _check_classes(model, source)
    _to_device(model, device).eval()
    if optimize and next(model.parameters()).device.type == 'cpu' and can_optimize(model):
        optimize_for_cpu(model)
    if bf16:
        use_bf16(model)
    return model


def _check_classes(model: BaseSegmentor, source: str) -> None:
    """Check the number of classes, and that their names can be displayed."""
    if (count := len(model.dataset_meta['classes'])) != model.num_classes:
        raise UsageError(f'{source}: the model predicts {model.num_classes} classes, but the metadata lists {count}')
    if odd := next((name for name in model.dataset_meta['classes'] if hidden(str(name))), None):
        raise UsageError(f'{source}: the class name {odd!r} contains characters that cannot be displayed')


def _to_device(model: nn.Module, device: str | None) -> nn.Module:
    try:
        return model.to(device or ('cuda' if torch.cuda.is_available() else 'cpu'))
    except (RuntimeError, AssertionError) as error:
        reason = ' '.join(str(error).split('\n')[0].split())
        message = f"expected a device of this machine, e.g. 'cpu' or 'cuda:0', got {device!r} ({reason})"
        raise UsageError(message) from error


def _read(
    config_or_checkpoint: Weights | Config, checkpoint: Weights | None
) -> tuple[Config, dict[str, Any] | None, Weights | None, str]:
    """Return the config, the content of the checkpoint, its path, and the name of the first argument for messages."""
    from mmseg_volo.config import load_config

    if isinstance(config_or_checkpoint, Config):
        cfg, source = copy.deepcopy(config_or_checkpoint), str(config_or_checkpoint.filename or 'the config')
    elif (source := str(config_or_checkpoint)).endswith(CHECKPOINT_SUFFIXES):
        if checkpoint is not None:
            raise UsageError(f'expected a config and a checkpoint, got two checkpoints: {source} and {checkpoint}')
        content = read_source(source)
        return config_of(content, source), content, source, source
    else:
        cfg = load_config(source)
    return cfg, None if checkpoint is None else read_source(checkpoint), checkpoint, source


def _compare_pixels(model: nn.Module, cfg: Config, checkpoint: str, content: Mapping[str, Any]) -> None:
    """Warn if the config normalises images in another way than the checkpoint was trained with."""
    from mmseg_volo.models.normalisation import applied_normalisation, expected_normalisation, mismatch, test_steps

    applied = applied_normalisation(model, cfg.get('test_pipeline') or test_steps(cfg))
    if message := mismatch(checkpoint, expected_normalisation(checkpoint, content), applied):
        warnings.warn(message, stacklevel=3)


def _build(cfg: Config, source: str, described: Mapping[str, Tensor] | None) -> BaseSegmentor:
    """Build the model of a config; `described` holds the weights of a checkpoint that describes its model itself."""
    from mmengine.model import revert_sync_batchnorm
    from mmseg.registry import MODELS, TRANSFORMS

    import mmseg_volo.datasets  # noqa: F401, registers transforms
    import mmseg_volo.models.segmentors  # noqa: F401, registers the modules of models
    from mmseg_volo.io.allowed.size import NoLargerThan, TooLarge

    _without_init_cfg(cfg.model)
    faults = BUILDING_FAULTS if described is None else (Exception,)  # modules raise anything for invalid arguments
    try:
        with _mmseg_scope(), nullcontext() if described is None else NoLargerThan(described.values()):
            for step in () if described is None else cfg.get('test_pipeline', ()):
                TRANSFORMS.build(step)
            return revert_sync_batchnorm(MODELS.build(cfg.model))
    except TooLarge:
        raise UsageError(
            f'{source} describes a model that is much larger than its weights: download the file again'
        ) from None
    except faults as error:
        raise UsageError(f'the model of {source} cannot be built: {describe(error)}') from error


def _renew() -> None:
    global _BUILDING
    _BUILDING = threading.Lock()


if hasattr(os, 'register_at_fork'):  # a thread that holds the lock does not exist in the child
    os.register_at_fork(after_in_child=_renew)


@contextmanager
def _mmseg_scope() -> Iterator[None]:
    """Look modules up in mmseg's registries inside the block, in one thread at a time; then restore the scope."""
    with _BUILDING, DefaultScope.overwrite_default_scope('mmseg'):
        yield


def _without_init_cfg(model: ConfigDict) -> None:
    """Remove `init_cfg`: a trained checkpoint holds the backbone too, so its ImageNet weights need not be fetched."""
    for module in model.values():
        if isinstance(module, dict) and 'init_cfg' in module:
            module['init_cfg'] = None


def _dataset_meta(cfg: Config, source: str) -> dict[str, Any]:
    """Return classes and colours of the config's data set, without reading its files."""
    if 'test_dataloader' not in cfg:
        raise UsageError(f'{source} does not list its classes: give its config too, load(CONFIG, {source!r})')
    from mmseg.registry import DATASETS

    with _mmseg_scope():
        dataset = DATASETS.build({**cfg.test_dataloader.dataset, 'pipeline': [], 'lazy_init': True})
    metainfo: dict[str, Any] = dataset.metainfo
    return metainfo


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
    """Segment one image, as `mmseg-volo predict` does. Threads may share a model.

    Args:
        model: from `load`; may be compiled by `torch.compile`, or in a wrapper such as `nn.DataParallel`.
        image: a path, the bytes of a file, a PIL image, an array (H, W, C) or a tensor (C, H, W); docs/images.md has
            the rules. Where georeferenced files have no data the mask is 255 (65535 beyond 255 classes).
        maps: further maps to return, any of 'confidence', 'entropy', 'probability'.
        bands: channels to read as red, green and blue, counted from 1; those that the file declares if None.
        value_range: pixel values to map to black and white, instead of the rules.
        windows: side in pixels of sliding windows at the image's full resolution; see `segment`.
        tell: called with a warning about an unusual image that is segmented all the same.

    Raises:
        FileNotFoundError, ValueError: it is not an image, or the model cannot predict, see `unwrap_segmentor`.
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
    segmentor: BaseSegmentor = unwrap_segmentor(model)
    classes, palette = (segmentor.dataset_meta[key] for key in ('classes', 'palette'))
    with torch.inference_mode(), opened(segmentor, image, bands, value_range, tell) as pixels:
        height, width = pixels.shape[1:] if isinstance(pixels, RasterPixels) else pixels.shape[:2]
        tensors = assemble(segment(segmentor, pixels, maps, windows, tell), (height, width))
        no_data = ~pixels.valid() if isinstance(pixels, RasterPixels) and pixels.masked else None
    dtype, no_data_value = mask_type(len(classes), no_data is not None)
    mask = tensors.pop('pred_sem_seg')[0].cpu().numpy().astype(dtype)
    arrays = {name: values.float().cpu().numpy() for name, values in tensors.items()}
    if no_data is not None:
        mask[no_data] = no_data_value
        for values in arrays.values():
            values[:, no_data] = np.nan
    planes = {name: values if name == 'probability' else values[0] for name, values in arrays.items()}
    return Prediction(mask, classes, palette, **planes)


def predict_each(
    model: nn.Module, images: Iterable[Source], maps: Sequence[str] = (), **options: Any
) -> Iterator[Prediction | ValueError | OSError]:
    """Segment many images; one that cannot be read yields its error, and the others continue.

    Args:
        model: from `load`.
        images, maps, options: see `predict`.

    Yields:
        The prediction or the error of each image, in the order of the images.

    Raises:
        UsageError: a single image was given, or the model cannot predict, see `unwrap_segmentor`.
    """
    from mmseg_volo.inference.options import Options
    from mmseg_volo.models.segmentors.unwrap import unwrap_segmentor

    single = isinstance(images, str | bytes | bytearray | memoryview | os.PathLike | Image.Image)
    if single or getattr(images, 'ndim', 4) != 4:  # iterating over one array would give its rows
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
