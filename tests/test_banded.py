"""Our segmentor against mmseg's EncoderDecoder with the same weights."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS, MODELS, DefaultScope
from mmengine.structures import PixelData
from mmseg.models import EncoderDecoder, SegDataPreProcessor
from mmseg.models.decode_heads import FCNHead
from mmseg.structures import SegDataSample
from torch import nn

from mmseg_volo.config import load_config
from mmseg_volo.datasets import scenes
from mmseg_volo.errors import UsageError
from mmseg_volo.segmentors import BandedEncoderDecoder, RunningTTA, masks_only
from mmseg_volo.segmentors import bands as bands_module

SLIDE = dict(mode='slide', crop_size=(48, 64), stride=(32, 40))


@MODELS.register_module()
class Strided(nn.Module):
    """A backbone of one convolution, for tests."""

    def __init__(self, stride: int = 4):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 7, stride, 3)

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        return [self.conv(images)]


@MODELS.register_module()
class OwnResizeHead(FCNHead):
    """A head that does more than enlarge its logits."""

    def predict_by_feat(self, seg_logits: torch.Tensor, batch_img_metas: list[dict]) -> torch.Tensor:
        return super().predict_by_feat(seg_logits, batch_img_metas).tanh() * 3


@MODELS.register_module()
class PaddedShapeHead(FCNHead):
    """A head that enlarges its logits to what it believes the network's input to be, as mmseg's Mask2Former."""

    def predict_by_feat(self, seg_logits: torch.Tensor, batch_img_metas: list[dict]) -> torch.Tensor:
        return F.interpolate(seg_logits, tuple(batch_img_metas[0]['pad_shape']), mode='bilinear')


@pytest.fixture(autouse=True)
def scope() -> Iterator[None]:
    with DefaultScope.overwrite_default_scope('mmseg'):
        yield


@pytest.fixture(autouse=True)
def narrow_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures of tests are small: let them have bands all the same."""
    monkeypatch.setitem(bands_module.BAND_BYTES, 'cpu', 40_000)


def pair(
    test_cfg: dict | None = None, channels: int = 6, pad: dict | None = None, stride: int = 4, **head: Any
) -> tuple[EncoderDecoder, BandedEncoderDecoder]:
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
    types = 'EncoderDecoder', 'BandedEncoderDecoder'
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
    theirs: EncoderDecoder, ours: BandedEncoderDecoder, data: dict
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


SIZES = {
    'even': dict(size=(112, 144)),
    'odd': dict(size=(101, 147)),
    'tall': dict(size=(203, 130)),
    'one row of windows': dict(size=(48, 200)),
    'smaller than the window': dict(size=(31, 45)),
    'narrower than the window': dict(size=(90, 37)),
    'larger original': dict(size=(96, 120), ori_shape=(211, 257)),
    'smaller original': dict(size=(96, 120), ori_shape=(41, 53)),
    'wider original': dict(size=(96, 120), ori_shape=(96, 201)),
    'taller original': dict(size=(96, 120), ori_shape=(149, 120)),
    'flipped': dict(size=(96, 121), ori_shape=(140, 177), flip=True, flip_direction='horizontal'),
    'upside down': dict(size=(97, 121), ori_shape=(140, 177), flip=True, flip_direction='vertical'),
    'padded': dict(size=(97, 120), ori_shape=(80, 99), padding_size=(3, 5, 2, 7)),
    'padded and upside down': dict(
        size=(97, 120), ori_shape=(131, 99), padding_size=(3, 5, 2, 7), flip=True, flip_direction='vertical'
    ),
}


@pytest.mark.parametrize('mode', ['slide', 'whole'])
@pytest.mark.parametrize('case', SIZES)
def test_equals_mmseg(case: str, mode: str) -> None:
    theirs, ours = pair({**SLIDE, 'mode': mode})
    for expected, found in both(theirs, ours, batch(**SIZES[case])):
        assert found.seg_logits.data.shape == (6, *found.ori_shape)
        agree(expected, found)


PADS = [dict(size_divisor=32), dict(size=(128, 160))]


@pytest.mark.parametrize('pad', PADS)
def test_an_image_seen_whole_is_padded_as_in_mmseg(pad: dict) -> None:
    theirs, ours = pair(pad=pad)
    for expected, found in both(theirs, ours, batch((85, 99), 2, ori_shape=(170, 198))):
        assert expected.img_padding_size[1] > 0
        agree(expected, found)
    (alone,) = ours.test_step(dict(inputs=batch((85, 99))['inputs']))
    assert alone.pred_sem_seg.data.shape == (1, 85, 99)


# the image, and to what its windows are padded: by the divisor of 32, and to the size of 128x160
CUT = [
    ((85, 99), None, None),
    ((31, 45), (32, 64), (48, 64)),
    ((90, 37), (90, 64), (90, 64)),
    ((40, 99), (48, 99), (48, 99)),
]


@pytest.mark.parametrize('case', CUT, ids=lambda case: '{}x{}'.format(*case[0]))
@pytest.mark.parametrize('pad', PADS)
def test_windows_are_cut_before_anything_is_padded(pad: dict, case: tuple) -> None:
    """As mmseg's are by a preprocessor that does not pad, or only as far as the window that the image does not fill."""
    size, *seen = case
    theirs, ours = pair(SLIDE, pad=pad)
    seen = seen[PADS.index(pad)]
    theirs.data_preprocessor.test_cfg = seen and dict(size=seen)
    for expected, found in both(theirs, ours, batch(size, 2, ori_shape=(170, 198))):
        same_results(expected, found)
        assert found.pad_shape == (seen or size)
        assert found.img_padding_size == (0, found.pad_shape[1] - size[1], 0, found.pad_shape[0] - size[0])


class PreProcessorOfItsOwn(SegDataPreProcessor):
    """One that may look at the image as a whole."""


def ways(ours: BandedEncoderDecoder, data: dict) -> dict[str, SegDataSample]:
    """The same image, each way that predictions are made."""
    found = {'step': ours.test_step(copy.deepcopy(data))[0]}
    padded = ours.data_preprocessor(copy.deepcopy(data), False)
    found |= {f'normalised, {time}': ours.predict(**padded)[0] for time in ('first', 'second')}
    logits = torch.cat([logits for _, _, parts in ours.bands(copy.deepcopy(data)) for _, logits in parts], 1)
    found['bands'] = SegDataSample(seg_logits=PixelData(data=logits))
    (views,) = RunningTTA(ours).test_step({key: [value] for key, value in copy.deepcopy(data).items()})
    found['views'] = views
    ours.data_preprocessor.__class__ = PreProcessorOfItsOwn
    found['another preprocessor'] = ours.test_step(copy.deepcopy(data))[0]
    return found


def test_an_ade20k_image_of_683_columns() -> None:
    """Padded to 704 before it was cut, the last window held 21 columns of nothing."""
    _, ours = pair(dict(mode='slide', crop_size=(512, 512), stride=(341, 341)), pad=dict(size_divisor=32), stride=16)
    data = batch((512, 683))
    expected = torch.zeros(6, 512, 683)
    for left in (0, 171):
        crop = data['inputs'][0][[2, 1, 0], :, left : left + 512].float()
        crop = (crop - torch.tensor([120, 110, 100]).view(3, 1, 1)) / torch.tensor([60, 50, 40]).view(3, 1, 1)
        with torch.no_grad():
            logits = ours.encode_decode(crop[None], [dict(img_shape=(512, 512))])[0]
        expected[:, :, left : left + 512] += logits
    expected[:, :, 171:512] /= 2
    seen = []
    ours.backbone.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    for way, found in ways(ours, data).items():
        scores = found.seg_logits.data
        want = expected.softmax(0) if way == 'views' else expected
        torch.testing.assert_close(scores, want, rtol=0, atol=1e-5, msg=way)
    assert len(seen) == 2 * 6
    assert not any((crop == 0).all(1).all(1).any() for crop in seen), 'a column of padding reached the network'
    assert {tuple(crop.shape) for crop in seen} == {(1, 3, 512, 512)}


@pytest.mark.parametrize('channels', [1, 2, 3, 6])
@pytest.mark.parametrize('align_corners', [False, True])
@pytest.mark.parametrize('stride', [4, 1, 5])
def test_heads(channels: int, align_corners: bool, stride: int) -> None:
    theirs, ours = pair(SLIDE, channels, stride=stride, align_corners=align_corners)
    for expected, found in both(theirs, ours, batch((101, 147), ori_shape=(160, 160))):
        agree(expected, found)


@pytest.mark.parametrize('mode', ['slide', 'whole'])
def test_heads_that_do_more_than_enlarge_their_logits(mode: str) -> None:
    theirs, ours = pair({**SLIDE, 'mode': mode}, type='OwnResizeHead')
    for expected, found in both(theirs, ours, batch((101, 147), 2, ori_shape=(160, 160))):
        assert expected.seg_logits.data.abs().max() <= 3
        agree(expected, found)


@pytest.mark.parametrize('pad', [None, *PADS])
def test_heads_see_the_windows_size_as_that_of_the_padded_image(pad: dict | None) -> None:
    theirs, _ = pair(SLIDE)
    ours = pair(SLIDE, pad=pad, type='PaddedShapeHead')[1]
    ours.load_state_dict(theirs.state_dict())
    for expected, found in both(theirs, ours, batch((52, 70))):
        same_results(expected, found)


@pytest.mark.parametrize('window_batch', [1, 2, 3, 50])
def test_batches_of_windows_and_of_images(window_batch: int) -> None:
    theirs, ours = pair({**SLIDE, 'window_batch': window_batch})
    calls = []
    ours.backbone.register_forward_pre_hook(lambda _, inputs: calls.append(len(inputs[0])))
    for expected, found in both(theirs, ours, batch((101, 200), 2)):  # 5 windows in a row
        agree(expected, found)
    assert sum(calls) == 2 * 3 * 5 and max(calls) == min(window_batch, 5)


def test_normalised_images_and_logits_by_themselves() -> None:
    theirs, ours = pair(SLIDE)
    images = torch.randn(2, 3, 101, 147)
    with torch.no_grad():
        for expected, found in zip(theirs.predict(images.clone()), ours.predict(images), strict=True):
            agree(expected, found)
        metas = [dict(ori_shape=(101, 147), img_shape=(101, 147), pad_shape=(101, 147))] * 2
        torch.testing.assert_close(ours.inference(images, metas), theirs.inference(images, metas), rtol=0, atol=1e-5)
    assert not ours.predict(images)[0].seg_logits.data.requires_grad


def test_gaussian_weights() -> None:
    """Against the sum over whole pictures that they stand for."""
    _, ours = pair({**SLIDE, 'window_weight': 'gaussian'})
    images = torch.randn(1, 3, 101, 147)
    y, x = ((torch.arange(n) - (n - 1) / 2) / (n / 8) for n in SLIDE['crop_size'])
    weight = torch.exp(-(y[:, None] ** 2 + x**2) / 2)
    total, weights = torch.zeros(6, 101, 147, dtype=torch.float64), torch.zeros(101, 147, dtype=torch.float64)
    for top in (0, 32, 53):
        for left in (0, 40, 80, 83):
            crop = images[:, :, top : top + 48, left : left + 64]
            with torch.no_grad():
                logits = ours.encode_decode(crop, [dict(img_shape=crop.shape[2:])])[0]
            total[:, top : top + 48, left : left + 64] += logits * weight
            weights[top : top + 48, left : left + 64] += weight
    found = ours.predict(images)[0].seg_logits.data
    torch.testing.assert_close(found.double(), total / weights, rtol=0, atol=1e-5)
    plain = pair(SLIDE)[1]
    plain.load_state_dict(ours.state_dict())
    assert (plain.predict(images)[0].seg_logits.data - found).abs().max() > 1e-2


@pytest.mark.parametrize('channels', [1, 6])
def test_maps(channels: int) -> None:
    maps = ('probability', 'confidence', 'entropy')
    _, ours = pair({**SLIDE, 'maps': maps}, channels)
    (found,) = ours.test_step(batch((101, 147), ori_shape=(160, 160)))
    scores = found.seg_logits.data
    chances = scores.softmax(0) if channels > 1 else torch.cat([1 - scores, scores])
    torch.testing.assert_close(found.probability.data, chances if channels > 1 else scores)
    taken = chances.gather(0, found.pred_sem_seg.data.long())
    torch.testing.assert_close(found.confidence.data, taken)
    entropy = torch.distributions.Categorical(chances.movedim(0, -1)).entropy()
    torch.testing.assert_close(found.entropy.data[0], entropy, rtol=1e-4, atol=1e-5)
    with masks_only(ours):
        (alone,) = ours.test_step(batch((101, 147)))
    assert {'pred_sem_seg', *maps} == set(alone.keys())


def test_masks_without_logits() -> None:
    theirs, ours = pair(SLIDE)
    data = batch((101, 147), 2, ori_shape=(160, 160))
    with masks_only(nn.ModuleList([ours, theirs])):
        pairs = [*both(theirs, ours, data)]
        assert not ours.keeps_logits
    assert ours.keeps_logits
    for expected, found in pairs:
        assert found.keys() == ['pred_sem_seg'] and 'seg_logits' in expected
        assert torch.equal(found.pred_sem_seg.data, expected.pred_sem_seg.data)
    for said in (True, False):
        ours.test_cfg.keep_logits = said
        with masks_only(ours):
            assert ours.keeps_logits == said
        assert ours.keeps_logits == said


def peak_bytes(model: BandedEncoderDecoder, height: int) -> int:
    """The most memory that tensors of a prediction take at once."""
    data = batch((height, 96))
    with torch.profiler.profile(profile_memory=True) as profile, masks_only(model):
        model.test_step(data)
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == '[memory]']
    held = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak - height * 96 * 8  # the mask


def test_memory_does_not_grow_with_the_height() -> None:
    _, ours = pair(SLIDE, 32)
    low, high = peak_bytes(ours, 200), peak_bytes(ours, 1000)
    assert high < 1.05 * low + 2 * 8 * 1000  # what is known of each row
    assert high < 0.15 * 32 * 1000 * 96 * 4
    assert peak_bytes(pair(dict(mode='whole'), 32)[1], 1000) > 2 * high


def test_what_cannot_work_is_said_at_once() -> None:
    with pytest.raises(UsageError, match='leaves gaps'):
        pair({**SLIDE, 'stride': (49, 40)})


@pytest.mark.parametrize('channels', [1, 10])
def test_masks_of_many_views_need_no_logits(channels: int, tmp_path: Path) -> None:
    cfg = load_config('volo_demo')
    root = scenes.generate(tmp_path / 'scenes', 1, 2, 64, 128)
    cfg.test_dataloader.dataset.update(data_root=str(root), pipeline=cfg.tta_pipeline)
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    _, ours = pair(SLIDE, channels)
    tta = MODELS.build(dict(type='RunningTTA', module=ours))
    data = pseudo_collate([dataset[0], dataset[1]])
    with torch.no_grad():
        expected = tta.test_step(copy.deepcopy(data))
    with masks_only(tta):
        found = tta.test_step(data)
    for a, b in zip(expected, found, strict=True):
        assert 'seg_logits' in a and 'seg_logits' not in b and b.gt_sem_seg.data.shape == (1, 64, 128)
        assert torch.equal(a.pred_sem_seg.data, b.pred_sem_seg.data) and len(b.pred_sem_seg.data.unique()) > 1
