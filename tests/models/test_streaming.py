"""Our segmentor against mmseg's EncoderDecoder with the same weights."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from helpers.segmentors import SLIDE, agree, batch, both, narrow_bands, pair, same_results, scope  # noqa: F401
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS, MODELS
from mmseg.models.decode_heads import FCNHead
from torch import nn

from mmseg_volo.config import load_config
from mmseg_volo.datasets.synthetic import scenes
from mmseg_volo.errors import UsageError
from mmseg_volo.models.segmentors import StreamingEncoderDecoder, masks_only


@MODELS.register_module()
class OwnResizeHead(FCNHead):
    """A head that does more than enlarge its logits."""

    def predict_by_feat(self, seg_logits: torch.Tensor, batch_img_metas: list[dict]) -> torch.Tensor:
        return super().predict_by_feat(seg_logits, batch_img_metas).tanh() * 3


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


def peak_bytes(model: StreamingEncoderDecoder, height: int) -> int:
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
    tta = MODELS.build(dict(type='StreamingTTA', module=ours))
    data = pseudo_collate([dataset[0], dataset[1]])
    with torch.no_grad():
        expected = tta.test_step(copy.deepcopy(data))
    with masks_only(tta):
        found = tta.test_step(data)
    for a, b in zip(expected, found, strict=True):
        assert 'seg_logits' in a and 'seg_logits' not in b and b.gt_sem_seg.data.shape == (1, 64, 128)
        assert torch.equal(a.pred_sem_seg.data, b.pred_sem_seg.data) and len(b.pred_sem_seg.data.unique()) > 1
