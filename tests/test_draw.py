from __future__ import annotations

import numpy as np

from mmseg_volo.draw import colour, overlay, with_legend

PALETTE = [[255, 0, 0], [0, 200, 0]]


def test_colours_are_rgb_and_ignored_pixels_black() -> None:
    mask = np.array([[0, 1, 255]], np.uint8)
    assert colour(mask, PALETTE).tolist() == [[[255, 0, 0], [0, 200, 0], [0, 0, 0]]]
    image = np.full((1, 3, 3), 100, np.uint8)
    assert np.array_equal(overlay(image, mask, PALETTE, 0), image)
    assert np.array_equal(overlay(image, mask, PALETTE, 1), colour(mask, PALETTE))


def test_legend_names_what_occurs() -> None:
    mask = np.zeros((60, 300), np.uint8)
    picture = with_legend(colour(mask, PALETTE), mask, ['road', 'sky'], PALETTE)
    assert picture.shape[1:] == (300, 3) and picture.shape[0] > 60
    strip = picture[60:].reshape(-1, 3).tolist()
    assert [255, 0, 0] in strip and [0, 200, 0] not in strip
    narrow = np.repeat(np.arange(40, dtype=np.uint8), 20).reshape(20, 40)
    names = [f'class number {i}' for i in range(40)]
    assert with_legend(np.zeros((20, 40, 3), np.uint8), narrow, names, PALETTE * 20).shape[0] > 20 + 40 * 10
