from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mmseg_volo.engine.hooks import overlay as hooks
from mmseg_volo.inference import Options
from mmseg_volo.inference import outputs as images
from mmseg_volo.inference.api import Prediction
from mmseg_volo.report.evaluation_view import _jpeg
from mmseg_volo.utils.files import encode_image
from mmseg_volo.visualization import colour_mask, legend, overlay, with_legend

PALETTE = [[255, 0, 0], [0, 200, 0]]


def test_colours_are_rgb_and_ignored_pixels_black() -> None:
    mask = np.array([[0, 1, 255]], np.uint8)
    assert colour_mask(mask, PALETTE).tolist() == [[[255, 0, 0], [0, 200, 0], [0, 0, 0]]]
    image = np.full((1, 3, 3), 100, np.uint8)
    assert np.array_equal(overlay(image, mask, PALETTE, 0), image)
    assert np.array_equal(overlay(image, mask, PALETTE, 1), colour_mask(mask, PALETTE))


def test_legend_names_what_occurs() -> None:
    mask = np.zeros((60, 300), np.uint8)
    picture = with_legend(colour_mask(mask, PALETTE), mask, ['road', 'sky'], PALETTE)
    assert picture.shape[1:] == (300, 3) and picture.shape[0] > 60
    strip = picture[60:].reshape(-1, 3).tolist()
    assert [255, 0, 0] in strip and [0, 200, 0] not in strip
    narrow = np.repeat(np.arange(40, dtype=np.uint8), 20).reshape(20, 40)
    names = [f'class number {i}' for i in range(40)]
    assert with_legend(np.zeros((20, 40, 3), np.uint8), narrow, names, PALETTE * 20).shape[0] > 20 + 40 * 10


def test_legends_are_no_larger_than_they_need_to_be() -> None:
    for height, width, most in ((1, 70000, 40), (2000, 20000, 200), (9000, 300, 60)):
        assert len(legend({0: 'road', 1: 'sky'}, PALETTE, width, height)) < most


def test_an_overlay_that_no_file_can_hold_is_not_drawn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(images, 'overlay', None)
    found = Prediction(np.zeros((1, 65501), np.uint8), ['road', 'sky'], PALETTE)
    image = np.zeros((1, 65501, 3), np.uint8)
    written, left_out = images.write_image(tmp_path, Path('a'), image, found, Options(['overlays']), ['overlays'])
    assert not written and 'a.jpg is left out: a .jpg file cannot hold 65501x1 pixels' in left_out['overlays']


def test_as_many_colours_as_a_byte_has_values() -> None:
    palette = [[i, i, i] for i in range(256)]
    assert colour_mask(np.array([[0, 255]], np.uint8), palette).tolist() == [[[0] * 3, [255] * 3]]


def test_what_a_file_cannot_hold_is_said(tmp_path: Path) -> None:
    wide = np.zeros((2, 66000, 3), np.uint8)
    with pytest.raises(ValueError, match='a .jpg file cannot hold 66000x2 pixels of uint8'):
        encode_image('.jpg', wide)  # OpenCV 5 returns False, 4 raises
    with pytest.raises(ValueError, match='a .png file cannot hold 0x0 pixels'):
        encode_image('.png', wide[:0, :0])
    assert encode_image('.png', wide).startswith(b'\x89PNG')
    hooks._write(tmp_path / 'deep/a.jpg', wide)  # a test goes on
    hooks._write(tmp_path / 'deep/b.jpg', wide[:, :9])
    assert [path.name for path in tmp_path.rglob('*.*')] == ['b.jpg']
    assert _jpeg(wide).startswith('data:image/png')  # nor does a report end
