"""Find the batch size that fits the GPU, and check that the checkpoints fit on the disk, before a training starts."""

from __future__ import annotations

import gc
import shutil
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.model import BaseModel, revert_sync_batchnorm
from mmengine.registry import MODELS, DefaultScope
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

import mmseg_volo.models.segmentors  # noqa: F401, registers the components of models
from mmseg_volo.engine.optim.precision import gpu_has_bfloat16
from mmseg_volo.errors import UsageError, describe
from mmseg_volo.zoo.cost import STATES, build_on_meta

TRIED = (16, 8, 4, 2)  # batch sizes; batch norm after pooling to one pixel needs 2 images
FULL = 0.9  # share of the free memory that a training may take
CHECKPOINTS_AT_ONCE = 3  # the last, the best, and the one being written


def fitting_batch(cfg: Config, channels: int, most: int) -> int:
    """Return the largest batch size, of 16, 8, 4 and 2, whose training step fits into GPU memory.

    Args:
        cfg: with `model` and `crop_size`.
        channels: of the images.
        most: number of training images.

    Raises:
        UsageError: not even two images fit.
    """
    model_cfg = {**cfg.model, 'backbone': {**cfg.model.backbone, 'init_cfg': None}}
    with DefaultScope.overwrite_default_scope('mmseg'):
        model = revert_sync_batchnorm(MODELS.build(model_cfg)).cuda().train()
    states = 2 * sum(4 * p.numel() for p in model.parameters() if p.requires_grad)  # AdamW's moments
    free = torch.cuda.mem_get_info()[0] + torch.cuda.memory_allocated()
    for images in TRIED:
        if images > max(most, TRIED[-1]):
            continue
        torch.cuda.reset_peak_memory_stats()
        try:
            _step(model, images, channels, tuple(cfg.crop_size))
            fits = torch.cuda.max_memory_allocated() + states <= FULL * free
        except torch.cuda.OutOfMemoryError:
            fits = False
        model.zero_grad(set_to_none=True)
        gc.collect()
        torch.cuda.empty_cache()
        if fits:
            return images
    raise UsageError(
        f'the GPU has {free / 2**30:.1f} GB free, too little for two images of {cfg.crop_size[0]}x{cfg.crop_size[1]}: '
        f'use a smaller --size or --model'
    )


def _step(model: BaseModel, images: int, channels: int, crop: tuple[int, int]) -> None:
    device = next(model.parameters()).device
    label = PixelData(data=torch.zeros(1, *crop, dtype=torch.long))
    samples = [
        SegDataSample(gt_sem_seg=label.clone(), metainfo=dict(img_shape=crop, ori_shape=crop)) for _ in range(images)
    ]
    data = dict(inputs=[torch.zeros(channels, *crop) for _ in range(images)], data_samples=samples)
    with torch.autocast(device.type, torch.bfloat16, enabled=gpu_has_bfloat16()):
        data = model.data_preprocessor(data, True)
        losses = model(**data, mode='loss')
        total, _ = model.parse_losses(losses)
    total.backward()


def check_disk(cfg: Config, folder: Path) -> int:
    """Check that the checkpoints of a training fit on the disk.

    Returns:
        Number of parameters of the model.

    Raises:
        UsageError: they do not fit, or the model cannot be built.
    """
    try:
        count = sum(p.numel() for p in build_on_meta(cfg).parameters())
    except (AssertionError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise UsageError(f'the model of the config given to --model cannot be built: {describe(error)}') from error
    while not folder.exists():
        folder = folder.parent
    needed, free = CHECKPOINTS_AT_ONCE * STATES * count, shutil.disk_usage(folder).free
    if needed > free:
        raise UsageError(
            f'{folder.absolute()} has {free / 1e9:.1f} GB free, and checkpoints of this model ({count / 1e6:.0f} M '
            f'parameters) take {needed / 1e9:.1f} GB: make room, or choose another --work-dir'
        )
    return count
