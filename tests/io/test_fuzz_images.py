"""Images and labels that nobody would send: each ends in a right result or one of our errors, naming the file.

`FUZZ_CASES=20000 pytest -s tests/io/test_fuzz_images.py` runs as many cases and counts outcomes; `make test` 500.
"""

from __future__ import annotations

import io
import os
import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from mmseg_volo.errors import UsageError
from mmseg_volo.io.convert import to_rgb
from mmseg_volo.io.image import read_image, read_label

CASES = int(os.environ.get('FUZZ_CASES', 500)) // 2
DTYPES = ('bool', 'uint8', 'uint16', 'uint32', 'int8', 'int16', 'int64', 'float16', 'float32', 'float64', 'complex64')

MODES = ('1', 'L', 'P', 'RGB', 'RGBA', 'CMYK', 'YCbCr', 'LAB', 'HSV', 'I', 'F', 'LA', 'La', 'RGBa', 'I;16')
FILES = {'rgb.png': 'RGB', 'label.png': 'L', 'palette.png': 'P', 'a.bmp': 'RGB', 'a.tif': 'RGB'}


def checked(image: Any, shape: tuple[int, int]) -> None:
    """It is uint8 RGB of that size, or one of our errors."""
    try:
        found = to_rgb(image)
    except UsageError as error:
        assert len(str(error).splitlines()) == 1
    else:
        assert found.dtype == np.uint8 and found.shape == (*shape, 3)


@settings(max_examples=CASES // 2, deadline=None)
@given(st.data())
def test_arrays_and_tensors(data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from(DTYPES))
    shape = data.draw(hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5))
    array = data.draw(hnp.arrays(dtype, shape))
    checked(array, array.shape[:2])
    checked(torch.from_numpy(np.array(array)), array.shape[-2:])


@settings(max_examples=CASES // 2, deadline=None)
@given(
    st.sampled_from(
        ('1', 'L', 'P', 'RGB', 'RGBA', 'CMYK', 'YCbCr', 'LAB', 'HSV', 'I', 'F', 'LA', 'La', 'RGBa', 'I;16')
    ),
    st.integers(1, 6),
    st.integers(1, 6),
    st.binary(min_size=3, max_size=3),
)
def test_pil_images(mode: str, width: int, height: int, colour: bytes) -> None:
    checked(Image.new(mode, (width, height), tuple(colour) if mode == 'RGB' else colour[0]), (height, width))


@pytest.fixture(scope='module')
def corpus() -> dict[str, tuple[bytes, np.ndarray]]:
    """Name -> content of a file, its pixels."""
    rng = np.random.default_rng(0)
    rgb, files = rng.integers(0, 256, (40, 50, 3), np.uint8), {}
    for name, mode in (
        ('rgb.png', 'RGB'),
        ('label.png', 'L'),
        ('palette.png', 'P'),
        ('a.bmp', 'RGB'),
        ('a.tif', 'RGB'),
    ):
        file, picture = io.BytesIO(), Image.fromarray(rgb).convert(mode)
        picture.save(file, {'png': 'PNG', 'bmp': 'BMP', 'tif': 'TIFF'}[name[-3:]])
        files[name] = file.getvalue(), np.array(picture)
    file = io.BytesIO()
    Image.fromarray(rgb).save(file, 'JPEG')
    return {**files, 'a.jpg': (file.getvalue(), rgb)}


@pytest.mark.parametrize('read', [read_image, read_label])
def test_cut_and_flipped_files(read: Any, corpus: dict[str, tuple[bytes, np.ndarray]], tmp_path: Path) -> None:
    dice, outcomes = random.Random(0), Counter()
    for _ in range(CASES):
        name, (content, pixels) = dice.choice([*corpus.items()])
        path = tmp_path / name
        cut = dice.random() < 0.5
        place = dice.randrange(len(content))
        flipped = bytes([content[place] ^ 1 << dice.randrange(8)])
        path.write_bytes(content[:place] if cut else content[:place] + flipped + content[place + 1 :])
        try:
            found = read(path)
        except UsageError as error:
            assert str(path) in str(error) and len(str(error).splitlines()) == 1
            outcomes[path.suffix, 'refused'] += 1
            continue
        assert found.dtype == np.uint8 and found.ndim == (3 if read is read_image else 2)
        if name in ('rgb.png', 'label.png') and name.startswith('rgb') == (read is read_image):  # they have checksums
            assert np.array_equal(found, pixels), (name, place, cut)
        path.write_bytes(content)
        outcomes[path.suffix, 'right' if np.array_equal(found, read(path)) else 'other pixels'] += 1
    print(f'{read.__name__}: {dict(sorted(outcomes.items()))}')
