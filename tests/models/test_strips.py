"""Rows of resized pictures, means of windows and classes, each by itself."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from mmseg_volo.errors import UsageError
from mmseg_volo.models.segmentors import strips as bands
from mmseg_volo.models.segmentors.resize_rows import RowResize
from mmseg_volo.models.segmentors.test_cfg import PredictionOptions
from mmseg_volo.models.segmentors.windows import LazyImage, SlidingWindowMean

SLIDE = dict(mode='slide', crop_size=(48, 64), stride=(32, 40))


@pytest.mark.parametrize('channels', [1, 3, 4, 20])
@pytest.mark.parametrize('align_corners', [False, True])
@pytest.mark.parametrize(
    ('rows', 'out_rows'), [(1, 7), (2, 9), (7, 1), (5, 13), (64, 256), (129, 517), (2000, 3001), (8000, 4001)]
)
def test_rows_by_themselves_equal_the_whole(rows: int, out_rows: int, align_corners: bool, channels: int) -> None:
    picture = torch.randn(1, channels, rows, 3) * 10
    whole = F.interpolate(picture, size=(out_rows, 5), mode='bilinear', align_corners=align_corners)[0]
    resize = RowResize((rows, 3), (out_rows, 5), channels, align_corners)
    for top in range(0, out_rows, max(out_rows // 7, 1)):
        bottom = min(top + 3, out_rows)
        first, last = resize.span(top, bottom)
        found = resize(picture[0, :, first:last], top, bottom)
        torch.testing.assert_close(found, whole[:, top:bottom], rtol=1e-6, atol=2e-5)


def test_windows_are_forgotten() -> None:
    image = LazyImage(torch.randn(3, 400, 64), (400, 64), lambda crop: crop)
    mean = SlidingWindowMean(lambda crops: crops[:, :, ::4, ::4], image, (32, 32), (16, 24))
    for top in range(0, 400, 8):
        mean.rows(top, top + 8)
        assert len(mean._live) <= 3 * 3
    assert mean._next == len(mean.tops) == 24


def test_classes_are_the_first_of_the_largest() -> None:
    scores = torch.randint(0, 4, (200, 30, 17)).float()
    assert torch.equal(bands.classes(scores, None), scores.argmax(0, keepdim=True))
    scores[3, 4, 5] = torch.nan
    assert 0 <= bands.classes(scores, None)[0, 4, 5] < 200


@pytest.mark.parametrize(
    ('test_cfg', 'message'),
    [
        (dict(mode='slid'), "mode must be 'whole' or 'slide', got 'slid'"),
        (dict(mode='slide'), 'crop_size must be two numbers'),
        (dict(mode='slide', crop_size=(32, 32), stride=(33, 32)), 'leaves gaps'),
        ({**SLIDE, 'window_batch': 0}, 'window_batch must be 1 or more'),
        ({**SLIDE, 'window_weight': 'gauss'}, "window_weight must be one of .*got 'gauss'"),
        ({**SLIDE, 'maps': 'entropy'}, "maps must be a list of some of .*got 'entropy'"),
        ({**SLIDE, 'window_bath': 3}, "unknown key 'window_bath'; did you mean 'window_batch'"),
    ],
)
def test_options_that_cannot_work_are_named(test_cfg: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        PredictionOptions.of(test_cfg)
