"""mmseg's segmentor and ours of the same weights, for tests that compare them."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from mmseg.models import EncoderDecoder
from mmseg.structures import SegDataSample
from torch import nn

from mmseg_volo.models.segmentors import StreamingEncoderDecoder
from mmseg_volo.models.segmentors import strips as bands_module

SLIDE = dict(mode='slide', crop_size=(48, 64), stride=(32, 40))
PADS = [dict(size_divisor=32), dict(size=(128, 160))]


@MODELS.register_module()
class Strided(nn.Module):
    """A backbone of one convolution, for tests."""

    def __init__(self, stride: int = 4):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 7, stride, 3)

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        return [self.conv(images)]


@pytest.fixture(autouse=True)
def scope() -> Iterator[None]:
    with DefaultScope.overwrite_default_scope('mmseg'):
        yield


@pytest.fixture(autouse=True)
def narrow_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures of tests are small: let them have bands all the same."""
    monkeypatch.setitem(bands_module.STRIP_BYTES, 'cpu', 40_000)


def pair(
    test_cfg: dict | None = None, channels: int = 6, pad: dict | None = None, stride: int = 4, **head: Any
) -> tuple[EncoderDecoder, StreamingEncoderDecoder]:
    """mmseg's segmentor and ours, of the same config but for the type, and of the same weights."""
    cfg = Config(
        dict(
            data_preprocessor=dict(
                type='SegDataPreProcessor', mean=[120, 110, 100], std=[60, 50, 40], bgr_to_rgb=True, test_cfg=pad
            ),
            backbone=dict(type='Strided', stride=stride),
            decode_head=dict(
                type='FCNHead', in_channels=8, in_index=0, channels=8, num_convs=1, concat_input=False, num_classes=6
            ),
            test_cfg=test_cfg or dict(mode='whole'),
        )
    )
    cfg.decode_head.update(num_classes=max(channels, 2), out_channels=channels, **head)
    if channels == 1:
        cfg.decode_head.update(
            loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=True, avg_non_ignore=True), threshold=0.45
        )
    types = 'EncoderDecoder', 'StreamingEncoderDecoder'
    theirs, ours = (MODELS.build({**copy.deepcopy(cfg), 'type': each}).eval() for each in types)
    seg = theirs.decode_head.conv_seg
    nn.init.normal_(seg.weight, std=1.0)  # mmseg begins with nearly equal logits
    with torch.no_grad():
        seg.bias -= theirs(torch.randn(1, 3, 64, 64)).mean((0, 2, 3))
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def batch(size: tuple[int, int], count: int = 1, **meta: Any) -> dict:
    """A collated batch of noise with some structure."""
    images = F.interpolate(torch.rand(count, 3, 9, 11), size=size, mode='bicubic').mul(255).clamp(0, 255).byte()
    meta = dict(ori_shape=size, img_shape=size, pad_shape=size) | meta
    samples = [SegDataSample(metainfo=meta) for _ in images]
    return dict(inputs=[*images], data_samples=samples)


def both(
    theirs: EncoderDecoder, ours: StreamingEncoderDecoder, data: dict
) -> Iterator[tuple[SegDataSample, SegDataSample]]:
    with torch.no_grad():
        yield from zip(theirs.test_step(copy.deepcopy(data)), ours.test_step(copy.deepcopy(data)), strict=True)


def agree(expected: SegDataSample, found: SegDataSample) -> None:
    """`same_results`, and the same is said about the image."""
    same_results(expected, found)
    assert found.metainfo == expected.metainfo


def same_results(expected: SegDataSample, found: SegDataSample) -> None:
    """Logits within 1e-5, the same classes except where the best two are as close as that."""
    a, b = expected.seg_logits.data, found.seg_logits.data
    torch.testing.assert_close(b, a, rtol=0, atol=1e-5)
    assert b.dtype == a.dtype and {*found.keys()} == {*expected.keys()}
    mask, reference = found.pred_sem_seg.data, expected.pred_sem_seg.data
    assert mask.shape == reference.shape and mask.dtype == reference.dtype and len(mask.unique()) > 1
    if len(a) > 1:
        best, second = a.topk(2, dim=0).values
        assert ((best - second)[mask[0] != reference[0]] < 1e-5).all()
        assert (mask == reference).float().mean() > 0.99
    else:
        assert ((a - 0.45).abs()[mask != reference] < 1e-5).all()
