"""Which pixels of masks do not count: never by a guess that drops many."""

from __future__ import annotations

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

Change = Callable[[np.ndarray], np.ndarray]


def coded(*codes: int) -> Change:
    return lambda mask: np.array(codes)[mask]


INDICES = coded(0, 1, 2)


def with_rows(rows: int, value: float, classes: Change = INDICES) -> Change:
    """The first rows of SIDE hold a value."""
    return lambda mask: np.where(np.arange(fd.SIDE)[:, None] < rows, value, classes(mask))


def outlined(classes: Change) -> Change:
    """255 along the borders of classes."""
    window = np.ones((3, 3), np.uint8)
    return lambda mask: np.where(cv2.dilate(mask, window) != cv2.erode(mask, window), 255, classes(mask))


def plan(change: Change, *options: str, dtype: str = 'uint8', tags: dict | None = None) -> int:
    """The status of `train --plan-only` on masks of a change; TIFF where bytes do not do."""
    tiff = dtype != 'uint8' or tags

    def write(path: Path, mask: np.ndarray) -> None:
        pixels = change(mask).astype(dtype)
        if not tiff:
            Image.fromarray(pixels).save(path)
            return
        rasterio = pytest.importorskip('rasterio')
        size = dict(width=fd.SIDE, height=fd.SIDE, count=1)
        with rasterio.open(path.with_suffix('.tif'), 'w', driver='GTiff', dtype=dtype, **size, **(tags or {})) as file:
            file.write(pixels, 1)

    return train(fd.write(Path('data'), 6, write), '--plan-only', *options)


pytestmark = pytest.mark.filterwarnings('ignore::rasterio.errors.NotGeoreferencedWarning')


@pytest.mark.parametrize(
    'change, options, classes, ignored',
    [
        (coded(255, 128, 0), (), '0 128 255', ''),  # most pixels are 255
        (coded(255, 127, 0), (), '0 127 255', ''),
        (coded(0, 85, 255), ('--ignore', '255'), '0 85', '255'),
        (coded(0, 100, 255), ('--classes', 'a=0', 'b=100', 'c=255'), '0 100 255', ''),
        (with_rows(9, 255), (), '0 1 2', '255'),  # 14 %: beside indices, by custom
        (with_rows(40, 255), ('--ignore', '255'), '0 1 2', '255'),
        (with_rows(40, 255), ('--classes', 'a', 'b', 'c'), '0 1 2', '255'),
        (with_rows(40, 255), ('--classes', 'a', 'b', 'c', 'd'), '0 1 2 255', ''),
        (outlined(coded(0, 100, 180)), (), '0 100 180', '255'),  # thin, rare, between two others
        (coded(0, 255, 255), (), '0 255', ''),
    ],
)
def test_what_is_taken_for_ignored(change: Change, options: tuple, classes: str, ignored: str) -> None:
    assert plan(change, *options) == 0
    rows = Path('work/recipe/classes.csv').read_text().splitlines()[1:]
    codes = {bool(row.split(',')[0]): [] for row in rows} | {True: [], False: []}
    for row in rows:
        codes[bool(row.split(',')[0])].append(row.split(',')[1])
    assert (' '.join(codes[True]), ' '.join(codes[False])) == (classes, ignored)


@pytest.mark.parametrize(
    'change, share',
    [(with_rows(40, 255), '62.5'), (with_rows(20, 255, coded(0, 1, 1)), '31.2'), (coded(0, 100, 255), '1.*')],
    ids=['most', 'thick', 'neither'],
)
def test_what_cannot_be_told_is_asked(change: Change, share: str, capsys: pytest.CaptureFixture) -> None:
    assert plan(change) == 2
    asked = f'masks hold 255, .* on {share} % of all pixels.*--ignore 255, or .*--classes class_0=0 .*class_255=255'
    assert re.search(asked, capsys.readouterr().err)
    assert not Path('work').exists()


def test_what_is_ignored_and_in_no_mask_is_said(capsys: pytest.CaptureFixture) -> None:
    assert plan(with_rows(9, 255), '--ignore', '255', '77') == 0
    assert 'note: --ignore 77 leaves nothing out: no mask holds it' in capsys.readouterr().out


def mixed(mask: np.ndarray) -> np.ndarray:
    """One half of all masks as 0 and 1, the other as 0 and 255."""
    return (mask > 0) * (255 if np.flatnonzero(mask)[0] % 2 else 1)


def specked(mask: np.ndarray) -> np.ndarray:
    """Black and white, with a grey pixel."""
    return np.where(np.arange(mask.size).reshape(mask.shape) == 0, 1, (mask == 2) * 255)


@pytest.mark.parametrize('change, said', [(mixed, ', in no mask beside another class'), (specked, '')])
def test_white_that_may_be_what_is_one_elsewhere_is_asked(
    change: Change, said: str, capsys: pytest.CaptureFixture
) -> None:
    assert plan(change) == 2
    assert re.search(f'masks hold 255, .*beside 0; 1{said}: are these .*--ignore 255, or', capsys.readouterr().err)


def table(out: str, name: str) -> str:
    return next(line for line in out.splitlines() if line.startswith(f'{name} '))


@pytest.mark.parametrize(
    'rows, value, dtype, nodata, options, code',
    [
        (3, -9999, 'int16', -9999, (), '-9999'),
        (3, -9999, 'int16', None, (), '-9999'),
        (40, -9999, 'int32', None, ('--ignore=-9999',), '-9999'),
        (3, -1, 'int8', None, (), '-1'),
        (40, -1, 'float32', -1, (), '-1'),
        (3, -1, 'int64', -1, (), '-1'),
        (3, -9999, 'float64', -9999, (), '-9999'),  # as gdal_rasterize writes
        (3, 200, 'uint8', 200, (), '200'),
        (40, 255, 'uint8', 255, (), '255'),
        (3, 4294967295, 'uint32', 4294967295, (), '4294967295'),
        (40, np.nan, 'float32', None, (), '-'),
        (40, -3.4028235e38, 'float32', -3.4028235e38, (), '-'),
    ],
)
def test_nodata_is_ignored(
    rows: int, value: float, dtype: str, nodata: float | None, options: tuple, code: str, capsys: pytest.CaptureFixture
) -> None:
    tags = {} if nodata is None else dict(nodata=nodata)
    assert plan(with_rows(rows, value), *options, dtype=dtype, tags=tags) == 0
    share = f'{100 * rows / fd.SIDE:.3f}'
    assert table(capsys.readouterr().out, 'ignored').split()[1:3] == [code, share]
    assert main(['check', 'work/recipe/work.py']) == 0
    assert table(capsys.readouterr().out, 'ignored').split()[1] == share


def test_a_negative_value_on_most_pixels_is_asked(capsys: pytest.CaptureFixture) -> None:
    assert plan(with_rows(40, -1), dtype='int16') == 2
    assert re.search('masks hold -1, .*--ignore -1, or replace it in the masks by', capsys.readouterr().err)
    assert train(Path('data'), '--plan-only', '--ignore', '-1') == 0
    assert table(capsys.readouterr().out, 'ignored').split()[1] == '-1'


@pytest.mark.parametrize('code, change', [('0', coded(0, 1, 2)), ('255', coded(255, 128, 0))])
def test_nodata_that_may_be_a_class_is_asked(code: str, change: Change, capsys: pytest.CaptureFixture) -> None:
    assert plan(change, tags=dict(nodata=int(code))) == 2
    assert re.search(f'files call nodata.*--ignore {code}, or .*--classes', capsys.readouterr().err)
    assert train(Path('data'), '--plan-only', '--ignore', code) == 0
    assert table(capsys.readouterr().out, 'ignored').split()[1] == code


def test_nodata_of_a_binary_mask_is_its_background(capsys: pytest.CaptureFixture) -> None:
    assert plan(coded(0, 1, 1), tags=dict(nodata=0)) == 0
    out = capsys.readouterr().out
    assert table(out, 'background').split()[1] == '0' and 'though files call it nodata' in out


def test_any_code_has_its_place(tmp_path: Path) -> None:
    np.save(tmp_path / 'mask.npy', np.array([[-5, 70_000, np.nan], [1e30, 3, -np.inf]]))
    rule = MaskRule('values', [70_000, 3], [-5])
    np.testing.assert_array_equal(rule.read(tmp_path / 'mask.npy'), [[255, 0, 255], [255, 1, 255]])
