"""What stranger files hold: few bits, masks beside or inside, turned deep pictures, values that mislead."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from helpers.tiffs import GREY, GREY3, RGB, UTM, mask_of, tiff
from PIL import Image

import mmseg_volo
from mmseg_volo.errors import UsageError
from mmseg_volo.inference import Options, predict_files
from mmseg_volo.io.convert import to_rgb
from mmseg_volo.io.multiband import read_bands
from mmseg_volo.io.value_range import NODATA_RGB
from mmseg_volo_cli import main

rasterio = pytest.importorskip('rasterio', reason='rasterio reads TIFF files of all kinds: pip install rasterio')
pytestmark = pytest.mark.filterwarnings('ignore::rasterio.errors.NotGeoreferencedWarning')

SHARE = RGB.astype(np.float32) / 255


@pytest.mark.parametrize('bits', [2, 4, 12])
@pytest.mark.parametrize('place', [{}, UTM], ids=['plain', 'georeferenced'])
def test_few_bits_are_the_whole_range(bits: int, place: dict, tmp_path: Path) -> None:
    most = (1 << bits) - 1
    few = np.rint(GREY / 255 * most).astype(np.uint8 if bits <= 8 else np.uint16)
    found = to_rgb(tiff(tmp_path / 'a.tif', few, nbits=bits, **place))[..., 0]
    assert np.abs(found.astype(int) - np.rint(few / most * 255)).max() <= 1


@pytest.mark.parametrize('suffix', ['.pgm', '.ppm'])
def test_netpbm_says_its_largest_value(suffix: str, tmp_path: Path) -> None:
    head = b'P5 64 48 15\n' if suffix == '.pgm' else b'P6 64 48 15\n'
    pixels = GREY if suffix == '.pgm' else RGB
    (tmp_path / f'a{suffix}').write_bytes(head + (pixels // 17).tobytes())
    np.testing.assert_array_equal(to_rgb(tmp_path / f'a{suffix}'), to_rgb(pixels // 17 * 17))
    (tmp_path / 'a.pam').write_bytes(b'P7\nWIDTH 1\n')
    with pytest.raises(UsageError, match='a.pam is a PAM file, of a kind that is not read'):
        to_rgb(tmp_path / 'a.pam')


@pytest.mark.parametrize('where', ['inside', 'beside'])
def test_the_mask_of_a_plain_tiff(where: str, tmp_path: Path) -> None:
    path = tiff(tmp_path / 'a.tif', RGB, photometric='RGB')
    valid = np.ones((48, 64), bool)
    valid[:20, :30] = False
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=where == 'inside'), rasterio.open(path, 'r+') as file:
        file.write_mask(valid)
    assert (tmp_path / 'a.tif.msk').exists() == (where == 'beside')
    wanted = np.where(valid[..., None], RGB, np.uint8(NODATA_RGB))
    np.testing.assert_array_equal(to_rgb(path), wanted)


@pytest.mark.parametrize('orientation', range(1, 9))
def test_deep_tiffs_are_turned_too(orientation: int, tmp_path: Path) -> None:
    Image.fromarray(GREY).save(tmp_path / 'a.tif', tiffinfo={274: orientation})
    Image.fromarray(GREY.astype(np.float32) / 255).save(tmp_path / 'b.tif', tiffinfo={274: orientation})
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(GREY).save(tmp_path / 'c.png', exif=exif)
    expected = to_rgb(tmp_path / 'c.png')
    for name in ('a.tif', 'b.tif'):
        np.testing.assert_array_equal(to_rgb(tmp_path / name), expected)
    np.testing.assert_array_equal(to_rgb((tmp_path / 'b.tif').read_bytes()), expected)
    bands = read_bands(tmp_path / 'b.tif')[0]
    np.testing.assert_array_equal(np.rint(bands[..., 0] * 255), expected[..., 0])


def test_alpha_of_pictures_is_dropped_whatever_their_depth(tmp_path: Path) -> None:
    alpha = np.where(np.arange(64) < 30, 0, 65535).astype(np.uint16) * np.ones((48, 1), np.uint16)
    deep = np.dstack([RGB.astype(np.uint16) * 257, alpha])
    path = tiff(tmp_path / 'a.tif', deep, photometric='RGB', alpha='yes')
    np.testing.assert_array_equal(to_rgb(path), RGB)
    place = tiff(tmp_path / 'b.tif', deep, photometric='RGB', alpha='yes', **UTM)
    np.testing.assert_array_equal(to_rgb(place), np.where(alpha[..., None] > 0, RGB, np.uint8(NODATA_RGB)))


def test_bands_of_any_tiff(tmp_path: Path) -> None:
    four = np.dstack([RGB, GREY // 2])
    palette = {i: (i, 255 - i, 7, 255) for i in range(256)}
    for place in ({}, UTM):
        path = tiff(tmp_path / 'a.tif', four, photometric='RGB', alpha='no', **place)
        np.testing.assert_array_equal(to_rgb(path, bands=(4, 3, 2)), four[..., [3, 2, 1]])
        path = tiff(tmp_path / 'b.tif', GREY, palette, photometric='palette', **place)
        np.testing.assert_array_equal(to_rgb(path, bands=(2,)), 255 - GREY3)


def test_one_bright_pixel_does_not_hide_a_dark_picture(tmp_path: Path) -> None:
    dark = GREY.astype(np.uint16) * 12
    dark[0, 0] = 65535
    for given in (dark, tiff(tmp_path / 'a.tif', dark, **UTM)):
        with pytest.raises(UsageError, match='but for less than one pixel in a thousand, nearly black'):
            to_rgb(given)
    told: list[str] = []
    to_rgb(GREY.astype(np.float32) / 255 / 6, tell=told.append)
    assert 'floating point goes from 0 to 1' in told[0] and 'grey levels' in told[0]
    assert not to_rgb(np.zeros((9, 9), np.uint16)).any()  # black is black


def test_what_is_no_number_is_no_data(model: torch.nn.Module, tmp_path: Path) -> None:
    hole = np.zeros((48, 64), bool)
    hole[:20, :30] = True
    pixels = SHARE.copy()
    pixels[hole] = np.nan
    wanted = np.where(hole[..., None], np.uint8(NODATA_RGB), RGB)
    masked = np.ma.MaskedArray(RGB, np.repeat(hole[..., None], 3, 2))
    plain = tiff(tmp_path / 'a.tif', pixels, photometric='RGB')
    for given in (pixels, plain, masked):
        np.testing.assert_array_equal(to_rgb(given), wanted)
    expected = mmseg_volo.predict(model, wanted).mask
    np.testing.assert_array_equal(mmseg_volo.predict(model, plain).mask, expected)
    path = tiff(tmp_path / 'b.tif', pixels, photometric='RGB', **UTM)  # no nodata value
    (written,) = predict_files(model, [str(path)], tmp_path / 'out', Options(['masks']))
    for found in (mask_of(written), mmseg_volo.predict(model, path).mask):
        np.testing.assert_array_equal(found, np.where(hole, 255, expected))


def test_a_world_file_is_not_lost_without_a_word(
    model: torch.nn.Module, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    for name, world in (('a.png', 'a.pgw'), ('b.jpg', 'b.jgw'), ('c.jpg', 'c.jpgw'), ('d.png', 'd.wld')):
        cv2.imwrite(str(tmp_path / name), RGB)
        (tmp_path / world).write_text('1\n0\n0\n-1\n0\n0\n')
    predict_files(model, [str(tmp_path / '*.[jp]*g')], tmp_path / 'out', Options(['masks']))
    said = capsys.readouterr().out
    assert all(f'in {world}, is not kept' in said for world in ('a.pgw', 'b.jgw', 'c.jpgw', 'd.wld'))


OPTIONS = {
    'bands are counted from 1, got': [dict(bands=(0, 1, 2)), dict(bands='321'), dict(bands=()), dict(bands=(1.5,))],
    'the value range must go from low to high, got': [
        *(dict(value_range=span) for span in ((5, 5), (10, 0), (0, float('nan')), (0,), '0 255', (0, float('inf'))))
    ],
    'windows must be at least 32 pixels wide, got': [dict(windows=0), dict(windows=-5), dict(windows=100.5)],
}


@pytest.mark.parametrize('message', OPTIONS)
def test_options_of_the_python_door(message: str, model: torch.nn.Module) -> None:
    for options in OPTIONS[message]:
        with pytest.raises(UsageError, match=message):
            mmseg_volo.predict(model, RGB, **options)
        with pytest.raises(UsageError, match=message):
            mmseg_volo.predict_each(model, [RGB], **options)


def test_devices_that_are_not_there(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    cv2.imwrite(str(tmp_path / 'a.png'), RGB)
    for device in ('foo', 'cuda:99'):
        command = ['predict', str(checkpoint), str(tmp_path / 'a.png'), '--out', str(tmp_path / 'o')]
        assert main([*command, '--device', device]) == 2
        assert f"e.g. 'cpu' or 'cuda:0', got {device!r}" in capsys.readouterr().err


def test_a_cut_geotiff_is_one_sentence(model: torch.nn.Module, tmp_path: Path) -> None:
    path = tiff(tmp_path / 'a.tif', RGB, compress='deflate', tiled=True, blockxsize=16, blockysize=16, **UTM)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(UsageError, match='a.tif (cannot be read|.*is not a readable picture)'):
        mmseg_volo.predict(model, path)


def test_names_that_look_like_something_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ('~tmp.png', 'data:1.png'):
        cv2.imwrite(name, RGB[..., ::-1])
        np.testing.assert_array_equal(to_rgb(name), RGB)


def test_names_that_are_not_utf8(model: torch.nn.Module, tmp_path: Path) -> None:
    place, plain = (Path(os.fsdecode(os.fsencode(tmp_path) + name)) for name in (b'/caf\xe9.tif', b'/th\xe9.tif'))
    tiff(tmp_path / 'a.tif', RGB, photometric='RGB', **UTM).rename(place)
    tiff(tmp_path / 'b.tif', RGB.astype(np.uint16) * 257, photometric='RGB').rename(plain)
    np.testing.assert_array_equal(to_rgb(plain), RGB)
    with pytest.raises(UsageError, match='1 of 2 files left out: .*rename it to keep its georeference'):
        predict_files(model, [str(place), str(plain)], tmp_path / 'out', Options(['masks', 'areas']))
    assert (tmp_path / 'out/areas.csv').is_file()


@pytest.mark.skipif(not hasattr(os, 'fork'), reason='no fork here')
def test_a_child_of_a_process_that_loads_can_load(checkpoint: Path) -> None:
    from mmseg_volo.inference import api as apis

    threading.Thread(target=apis._BUILDING.acquire).start()  # as a thread that is loading
    try:
        child = os.fork()
        if not child:
            os._exit(0 if apis._BUILDING.acquire(timeout=5) else 1)
        assert os.waitpid(child, 0)[1] == 0
    finally:
        apis._BUILDING.release()
