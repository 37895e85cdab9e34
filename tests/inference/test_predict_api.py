"""What `predict` and `predict_each` take and give, whatever the segmentor."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.given_images import GIVEN

import mmseg_volo
from mmseg_volo.datasets.synthetic import scenes
from mmseg_volo.io.checkpoint import RECORD


def test_mmsegs_segmentor_says_the_same(checkpoint: Path, model: torch.nn.Module, tmp_path: Path) -> None:
    content = torch.load(checkpoint, weights_only=True)
    content['meta'][RECORD]['model']['type'] = 'EncoderDecoder'
    torch.save(content, tmp_path / 'theirs.pth')
    theirs = mmseg_volo.load(tmp_path / 'theirs.pth', device='cpu')
    image = scenes.scene(3, 75, 130)[0]
    found, expected = (mmseg_volo.predict(m, image, ['probability', 'confidence']) for m in (theirs, model))
    assert type(theirs).__name__ == 'EncoderDecoder'
    assert (found.mask == expected.mask).mean() > 0.999  # ties may fall either way
    for name in ('probability', 'confidence'):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), atol=1e-5)


@pytest.mark.parametrize('kind', GIVEN)
def test_predict_takes_every_kind_of_image(kind: str, model: torch.nn.Module) -> None:
    given, rgb = GIVEN[kind]
    (found,) = mmseg_volo.predict_each(model, [given])
    wanted = mmseg_volo.predict(model, np.ascontiguousarray(rgb, np.uint8))
    assert np.array_equal(found.mask, wanted.mask) and np.array_equal(
        mmseg_volo.predict(model, given).mask, wanted.mask
    )


def test_several_are_not_one(model: torch.nn.Module) -> None:
    batch = np.stack([scenes.scene(i, 48, 64)[0] for i in range(2)])
    assert [found.mask.shape for found in mmseg_volo.predict_each(model, batch)] == [(48, 64)] * 2
    for one in ('a.png', Path('a.png'), b'abc', batch[0], torch.from_numpy(batch[0])):
        with pytest.raises(ValueError, match='expected several images, e.g. in a list'):
            mmseg_volo.predict_each(model, one)
    with pytest.raises(ValueError, match='maps must be a list of some of'):
        mmseg_volo.predict(model, batch[0], maps='confidence')
