"""Masks that were smoothed or saved with a loss: no class is invented, and the true ones can be named."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers import folder_data as fd
from helpers.folder_training import apart, train  # noqa: F401
from PIL import Image

from mmseg_volo.datasets.mask_codes import MaskRule
from mmseg_volo_cli import main

COLOURS = np.array([[0, 0, 0], [250, 0, 0], [0, 200, 0]], np.uint8)
NAMED = ('--classes', 'ground=0,0,0', 'car=250,0,0', 'tree=0,200,0')
GREYS = ('--classes', 'ground=0', 'car=60', 'tree=180')


def grey(mask: np.ndarray) -> np.ndarray:
    return np.array([0, 60, 180], np.uint8)[mask]


def smaller(pixels: np.ndarray) -> np.ndarray:
    """As drawing or resizing with smooth edges makes it."""
    large = cv2.resize(pixels, None, fx=4, fy=4, interpolation=cv2.INTER_NEAREST)
    return cv2.resize(large[2:, 3:], (fd.SIDE, fd.SIDE), interpolation=cv2.INTER_AREA)


def saved(pixels: np.ndarray, kind: str, **how: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **how)
    return file.getvalue()


def as_file(change: Callable[[np.ndarray], np.ndarray], kind: str, suffix: str, **how: object) -> fd.Write:
    return lambda path, mask: path.with_suffix(suffix).write_bytes(saved(change(mask), kind, **how)) and None


def jpeg_as_png(path: Path, mask: np.ndarray) -> None:
    Image.open(io.BytesIO(saved(COLOURS[mask], 'jpeg', quality=90))).save(path)


@pytest.mark.parametrize(
    'write, names',
    [
        (as_file(grey, 'jpeg', '.jpg', quality=95), GREYS),
        (as_file(lambda mask: COLOURS[mask], 'jpeg', '.jpg', quality=90), NAMED),
        (as_file(lambda mask: COLOURS[mask], 'webp', '.webp', quality=80), NAMED),
        (as_file(grey, 'tiff', '.tif', compression='jpeg'), GREYS),
        (jpeg_as_png, NAMED),
        (as_file(lambda mask: smaller(COLOURS[mask]), 'png', '.png'), NAMED),
        (as_file(lambda mask: smaller(grey(mask)), 'png', '.png'), GREYS),
    ],
    ids=['grey JPEG', 'JPEG', 'WebP', 'TIFF', 'JPEG as PNG', 'smooth', 'smooth grey'],
)
def test_no_class_is_invented(write: fd.Write, names: tuple, capsys: pytest.CaptureFixture) -> None:
    data = fd.write(Path('data'), 6, write)
    assert train(data, '--plan-only') == 2
    said = r'masks hold \d+ (colours|values), of which 3 cover .* no classes.*as PNG.*--classes class_0'
    assert re.search(said, capsys.readouterr().err)
    assert not Path('work').exists()
    assert train(data, '--plan-only', *names) == 0
    note = r'pixels \(.* %\) with \d+ other (colours|values) count as the nearest class, up to \d+ away'
    out = capsys.readouterr().out
    assert re.search(note, out) and 'the nearest one counts' in out
    for number in range(6):  # all that was drawn, but for edges
        (path,) = (data / 'masks').glob(f'{number:02}.*')
        codes = [0, 60, 180] if names is GREYS else COLOURS.tolist()
        found = MaskRule('values' if names is GREYS else 'colours', codes, nearest=True).read(path)
        assert (found == fd.indices(number)).mean() > 0.9 and found.max() in (2, 255)


def test_the_recipe_trains_on_the_nearest() -> None:
    data = fd.write(Path('data'), 6, as_file(grey, 'jpeg', '.jpg', quality=95))
    assert train(data, *GREYS) == 0
    config = 'work/recipe/work.py'
    assert Path(config).read_text().count('nearest=True') == 2
    assert main(['check', config, '--out', 'report.json']) == 0


def test_a_class_that_is_not_named_is_not_swallowed(capsys: pytest.CaptureFixture) -> None:
    data = fd.write(Path('data'), 6, as_file(grey, 'jpeg', '.jpg', quality=95))
    assert train(data, '--plan-only', '--classes', 'ground=0', 'car=60') == 2
    assert 'no class of --classes: 180' in capsys.readouterr().err


def test_a_colour_of_borders_is_asked(capsys: pytest.CaptureFixture) -> None:
    window = np.ones((3, 3), np.uint8)

    def outlined(mask: np.ndarray) -> np.ndarray:
        border = cv2.dilate(mask, window) != cv2.erode(mask, window)
        return np.where(border[..., None], np.array([224, 224, 192], np.uint8), COLOURS[mask])

    data = fd.write(Path('data'), 6, as_file(outlined, 'png', '.png'))
    assert train(data, '--plan-only') == 2
    assert re.search('only as thin borders .*224,224,192.*--ignore 224,224,192', capsys.readouterr().err)
    assert train(data, '--plan-only', *NAMED) == 2  # it is not mistaken for the nearest class
    assert 'no class of --classes: 224,224,192' in capsys.readouterr().err
    assert train(data, '--plan-only', '--ignore', '224,224,192') == 0


def lines(mask: np.ndarray) -> np.ndarray:
    """A class that is a line, in another."""
    drawn = np.zeros_like(mask)
    drawn[10:50, 10:50] = 1
    return cv2.line(drawn, (2, 60), (int(mask.sum()) % 60, 2), 2, 1)


@pytest.mark.parametrize('codes', [[0, 1, 2], [0, 128, 255], [[0, 0, 0], [128, 0, 0], [255, 0, 0]]])
def test_a_thin_class_is_one(codes: list) -> None:
    data = fd.write(Path('data'), 6, as_file(lambda mask: np.array(codes, np.uint8)[lines(mask)], 'png', '.png'))
    assert train(data, '--plan-only') == 0
    assert Path('work/recipe/classes.csv').read_text().count('class_') == 3


def test_far_from_all_is_ignored(tmp_path: Path) -> None:
    Image.fromarray(np.array([[[250, 0, 0], [240, 9, 9], [125, 100, 0], [125, 0, 0]]], np.uint8)).save(
        tmp_path / 'm.png'
    )
    rule = MaskRule('colours', COLOURS.tolist(), nearest=True)
    for _ in range(2):  # what was found for a colour is kept
        np.testing.assert_array_equal(rule.read(tmp_path / 'm.png'), [[1, 1, 255, 255]])
