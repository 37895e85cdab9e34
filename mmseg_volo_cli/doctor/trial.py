"""Run one training step of a tiny segmentor, to check that a device can train."""

from __future__ import annotations

import math
import time
from contextlib import nullcontext

import torch
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.registry import MODELS, DefaultScope
from mmengine.structures import PixelData
from mmseg.models import BaseSegmentor
from mmseg.structures import SegDataSample

import mmseg_volo.register_all  # noqa: F401, registers the modules of the model

SIZE, CLASSES = 64, 3  # side in pixels
DIMS = [16, 32, 32, 32]


def tiny() -> BaseSegmentor:
    """Build a VOLO with SegFormer's head: outlook attention, attention, convolutions, norms."""
    arch = dict(depths=[1, 1, 1, 1], dims=DIMS, num_heads=[2, 4, 4, 4], stem_dim=8)
    head = dict(type='SegformerHead', in_channels=DIMS, in_index=[0, 1, 2, 3], channels=16, num_classes=CLASSES)
    head |= dict(
        norm_cfg=dict(type='SyncBN'),
        align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', avg_non_ignore=True),
    )
    pre = dict(type='SegDataPreProcessor', mean=[128.0] * 3, std=[64.0] * 3, size=(SIZE, SIZE), bgr_to_rgb=True)
    model = dict(type='StreamingEncoderDecoder', data_preprocessor=pre, decode_head=head, test_cfg=dict(mode='whole'))
    model['backbone'] = dict(type='VOLO', arch=arch, pretrain_img_size=SIZE)
    with DefaultScope.overwrite_default_scope('mmseg'):
        return revert_sync_batchnorm(MODELS.build(model))


def training_step(device: str) -> str:
    """Train for one step and predict with the result.

    Args:
        device: e.g. 'cpu', 'cuda:1', 'mps'.

    Returns:
        Precision, loss and seconds, as text.

    Raises:
        RuntimeError: the loss is not finite, or the weights did not change.
        Exception: whatever torch raises.
    """
    # Triton kernels run on the current GPU
    with torch.cuda.device(device) if device.startswith('cuda') else nullcontext():
        return _step(device)


def _step(device: str) -> str:
    start = time.monotonic()
    with torch.random.fork_rng(devices=[]):  # weights and data are drawn on the CPU
        torch.manual_seed(0)
        model = tiny().to(device).train()
        labels = torch.randint(CLASSES, (2, 1, SIZE, SIZE))
        images = [torch.randint(256, (3, SIZE, SIZE), dtype=torch.uint8) for _ in labels]
    samples = [SegDataSample(gt_sem_seg=PixelData(data=label)) for label in labels]
    for sample in samples:
        sample.set_metainfo(dict(img_shape=(SIZE, SIZE), ori_shape=(SIZE, SIZE)))
    half = device.startswith('cuda') and torch.cuda.is_bf16_supported()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    wrapper = AmpOptimWrapper(dtype='bfloat16', optimizer=optimizer) if half else OptimWrapper(optimizer)
    before = model.decode_head.conv_seg.weight.detach().clone()
    loss = model.train_step(dict(inputs=images, data_samples=samples), wrapper)['loss'].item()
    if not math.isfinite(loss):
        raise RuntimeError(f'the loss of a training step is {loss}')
    if torch.equal(before, model.decode_head.conv_seg.weight):
        raise RuntimeError('a training step did not change the weights')
    with torch.inference_mode():
        mask = model.eval().test_step(dict(inputs=images, data_samples=samples))[0].pred_sem_seg.data
    if mask.shape != (1, SIZE, SIZE):
        raise RuntimeError(f'a prediction has shape {tuple(mask.shape)}, expected {(1, SIZE, SIZE)}')
    return f'{"bfloat16" if half else "float32"}, loss {loss:.2f}, {time.monotonic() - start:.1f} s'
