"""Every kind of image by its stated rule."""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from helpers.given_images import GIVEN, RGB, RGBA, WIDE
from PIL import Image

from mmseg_volo.errors import UsageError
from mmseg_volo.io.convert import to_rgb


@pytest.mark.parametrize('kind', GIVEN)
def test_rule(kind: str) -> None:
    given, wanted = GIVEN[kind]
    found = to_rgb(given)
    assert found.dtype == np.uint8 and found.flags.c_contiguous
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize('kind', ['RGB', 'RGBA', 'L', 'P', '16 bits'])
def test_a_file_its_bytes_and_pil_agree(kind: str, tmp_path: Path) -> None:
    path = tmp_path / 'image.png'
    if kind == '16 bits':
        cv2.imwrite(str(path), WIDE[..., ::-1])
    else:
        Image.fromarray(RGBA if kind == 'RGBA' else RGB).convert(kind).save(path)
    by_path = to_rgb(path)
    assert np.array_equal(to_rgb(str(path)), by_path) and np.array_equal(to_rgb(path.read_bytes()), by_path)
    if kind != '16 bits':  # of three channels PIL has no 16 bits
        assert np.array_equal(to_rgb(Image.open(path)), by_path)
    if kind in ('RGB', 'RGBA', '16 bits'):
        assert np.array_equal(by_path, RGB)


@pytest.mark.parametrize('turned', range(1, 9))
def test_exif_turns_files_and_pil_images_alike(turned: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = turned
    Image.fromarray(np.kron(RGB, np.ones((8, 8, 1), np.uint8))).save(tmp_path / 'a.jpg', exif=exif, quality=95)
    by_path = to_rgb(tmp_path / 'a.jpg')
    assert by_path.shape[:2] == ((40, 56) if turned < 5 else (56, 40))
    by_pil = to_rgb(Image.open(tmp_path / 'a.jpg'))
    assert np.abs(by_path.astype(int) - by_pil).max() <= 3  # two decoders of JPEG


WRONG = {
    'floating point goes from 0 to 1, here from 0 to 255': np.array([[0.0, 255.0]]),
    'uint16 goes from 0 to 65535, here to 200 only': np.full((2, 2), 200, np.uint16),
    'int32 goes from 0 to 255, here from -1 to -1': np.full((2, 2), -1, np.int32),
    'pixels are integers, floating point or bool, here complex128': np.zeros((2, 2), complex),
    'channels come last in arrays, first in tensors': np.zeros((3, 8, 8), np.uint8),
    r'tensors have the shape \(H, W\) or \(C, H, W\)': torch.zeros(8, 8, 3),
    r'uint8 and shape \(4,\): arrays have': np.zeros(4, np.uint8),
    'has no pixels': np.zeros((0, 4, 3), np.uint8),
    'got list': [[1, 2]],
    'the image given as bytes .* is not a readable picture': b'hello',
}


@pytest.mark.parametrize('message', WRONG)
def test_anything_else_is_one_sentence(message: str) -> None:
    with pytest.raises(UsageError, match=message):
        to_rgb(WRONG[message])


def test_a_cut_pil_image_is_an_error() -> None:
    file = io.BytesIO()
    Image.fromarray(np.kron(RGB, np.ones((20, 20, 1), np.uint8))).save(file, 'JPEG')
    with pytest.raises(UsageError, match='cannot be read'):
        to_rgb(Image.open(io.BytesIO(file.getvalue()[:-200])))
