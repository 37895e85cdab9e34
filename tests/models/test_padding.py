"""Images and windows that are padded: what the network sees, and what comes out."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from helpers.segmentors import PADS, SLIDE, agree, batch, both, narrow_bands, pair, same_results, scope  # noqa: F401
from mmengine.registry import MODELS
from mmengine.structures import PixelData
from mmseg.models import SegDataPreProcessor
from mmseg.models.decode_heads import FCNHead
from mmseg.structures import SegDataSample

from mmseg_volo.models.segmentors import StreamingEncoderDecoder, StreamingTTA


@MODELS.register_module()
class PaddedShapeHead(FCNHead):
    """A head that enlarges its logits to what it believes the network's input to be, as mmseg's Mask2Former."""

    def predict_by_feat(self, seg_logits: torch.Tensor, batch_img_metas: list[dict]) -> torch.Tensor:
        return F.interpolate(seg_logits, tuple(batch_img_metas[0]['pad_shape']), mode='bilinear')


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


def ways(ours: StreamingEncoderDecoder, data: dict) -> dict[str, SegDataSample]:
    """The same image, each way that predictions are made."""
    found = {'step': ours.test_step(copy.deepcopy(data))[0]}
    padded = ours.data_preprocessor(copy.deepcopy(data), False)
    found |= {f'normalised, {time}': ours.predict(**padded)[0] for time in ('first', 'second')}
    logits = torch.cat([logits for _, _, strips in ours.strips(copy.deepcopy(data)) for _, logits in strips], 1)
    found['bands'] = SegDataSample(seg_logits=PixelData(data=logits))
    (views,) = StreamingTTA(ours).test_step({key: [value] for key, value in copy.deepcopy(data).items()})
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


@pytest.mark.parametrize('pad', [None, *PADS])
def test_heads_see_the_windows_size_as_that_of_the_padded_image(pad: dict | None) -> None:
    theirs, _ = pair(SLIDE)
    ours = pair(SLIDE, pad=pad, type='PaddedShapeHead')[1]
    ours.load_state_dict(theirs.state_dict())
    for expected, found in both(theirs, ours, batch((52, 70))):
        same_results(expected, found)
