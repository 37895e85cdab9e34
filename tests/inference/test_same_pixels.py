"""The same picture reaches the network as the same pixels, whatever it comes as (docs/images.md)."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from helpers import folder_data as fd
from helpers.tiffs import GREY, GREY3, RGB, UTM, mask_of, tiff
from mmengine.registry import DefaultScope
from PIL import Image, ImageOps

import mmseg_volo
from mmseg_volo.datasets.loading import LoadMultiBandImage
from mmseg_volo.datasets.synthetic import scenes
from mmseg_volo.datasets.transforms import LoadRandomCrop, LoadRGBImage
from mmseg_volo.errors import UsageError
from mmseg_volo.inference import Options, predict_files
from mmseg_volo.io.convert import to_rgb
from mmseg_volo.io.value_range import NODATA_RGB

rasterio = pytest.importorskip('rasterio', reason='rasterio reads TIFF files of all kinds: pip install rasterio')

ALPHA = np.tile(np.linspace(0, 255, 64).astype(np.uint8), (48, 1))
RGBA = np.dstack([RGB, ALPHA])
FEW = Image.fromarray(RGB).quantize(32)
BITS = GREY > 100


def pillow(suffix: str, image: Image.Image, **how: Any) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        image.save(folder / f'a{suffix}', **how)
        return folder / f'a{suffix}'

    return write


def gdal(pixels: np.ndarray, suffix: str = '.tif', **how: Any) -> Callable[[Path], Path]:
    return lambda folder: tiff(folder / f'a{suffix}', pixels, **how)


def deep_png(folder: Path) -> Path:
    cv2.imwrite(str(folder / 'a.png'), RGB[..., ::-1].astype(np.uint16) * 257)
    return folder / 'a.png'


def jpeg_pixels(image: Image.Image) -> np.ndarray:
    file = io.BytesIO()
    image.save(file, 'JPEG', quality=95)
    return np.array(Image.open(file).convert('RGB'))


CMYK, TURNED = Image.fromarray(RGB).convert('CMYK'), Image.Exif()
TURNED[0x0112] = 6
TABLE = {i: (*map(int, c), 255) for i, c in enumerate(np.array(FEW.getpalette()).reshape(-1, 3)[:32])}
PALETTE = dict(table=TABLE, photometric='palette')
JP2 = dict(suffix='.jp2', driver='JP2OpenJPEG', QUALITY='100', REVERSIBLE='YES', YCBCR420='NO')
WIDE, SHARE = RGB.astype(np.uint16) * 257, RGB.astype(np.float32) / 255
FILES = {  # kind -> how it is written, and the pixels that it is
    'PNG': (pillow('.png', Image.fromarray(RGB)), RGB),
    'PNG, alpha': (pillow('.png', Image.fromarray(RGBA)), RGB),
    'PNG, grey and alpha': (pillow('.png', Image.fromarray(np.dstack([GREY, ALPHA]), 'LA')), GREY3),
    'PNG, palette': (pillow('.png', FEW), np.array(FEW.convert('RGB'))),
    'PNG, 1 bit': (pillow('.png', Image.fromarray(BITS)), np.stack([BITS] * 3, -1) * np.uint8(255)),
    'PNG, 16 bits': (deep_png, RGB),
    'WebP, alpha': (pillow('.webp', Image.fromarray(RGBA), lossless=True, exact=True), RGB),
    'BMP': (pillow('.bmp', Image.fromarray(RGB)), RGB),
    'JPEG, CMYK': (pillow('.jpg', CMYK, quality=95), jpeg_pixels(CMYK)),
    'AVIF, turned': (pillow('.avif', Image.fromarray(RGB), quality=100, subsampling='4:4:4', exif=TURNED), None),
    'GIF': (pillow('.gif', FEW), np.array(FEW.convert('RGB'))),
    'PPM': (pillow('.ppm', Image.fromarray(RGB)), RGB),
    'TGA': (pillow('.tga', Image.fromarray(RGB)), RGB),
    'TIFF': (pillow('.tif', Image.fromarray(RGB)), RGB),
    'TIFF, alpha': (pillow('.tif', Image.fromarray(RGBA)), RGB),
    'TIFF, palette': (pillow('.tif', FEW), np.array(FEW.convert('RGB'))),
    'TIFF, 1 bit': (pillow('.tif', Image.fromarray(BITS)), np.stack([BITS] * 3, -1) * np.uint8(255)),
    'TIFF, 16 bits': (gdal(WIDE, photometric='RGB'), RGB),
    'TIFF, floating point': (gdal(SHARE, photometric='RGB'), RGB),
    'TIFF, white is 0': (gdal(255 - GREY, photometric='MINISWHITE'), GREY3),
    'TIFF, Zstandard': (gdal(RGB, photometric='RGB', compress='zstd'), RGB),
    'TIFF, int16': (gdal(RGB.astype(np.int16), photometric='RGB'), RGB),
    'JPEG 2000': (gdal(RGB, **JP2), RGB),
    'GeoTIFF': (gdal(RGB, **UTM), RGB),
    'GeoTIFF, alpha': (gdal(np.dstack([RGB, np.full_like(GREY, 9)]), photometric='RGB', alpha='yes', **UTM), RGB),
    'GeoTIFF, palette': (gdal(np.array(FEW), **PALETTE, **UTM), np.array(FEW.convert('RGB'))),
    'GeoTIFF, 1 bit': (gdal(BITS.astype(np.uint8), nbits=1, **UTM), np.stack([BITS] * 3, -1) * np.uint8(255)),
    'GeoTIFF, 16 bits': (gdal(WIDE, photometric='RGB', **UTM), RGB),
    'GeoTIFF, floating point': (gdal(SHARE, photometric='RGB', **UTM), RGB),
    'GeoTIFF, white is 0': (gdal(255 - GREY, photometric='MINISWHITE', **UTM), GREY3),
    'GeoTIFF, BigTIFF': (gdal(RGB, photometric='RGB', BIGTIFF='YES', **UTM), RGB),
    'georeferenced JPEG 2000': (gdal(RGB, **JP2, **UTM), RGB),
}
NOT_PILS = ('16 bits', 'floating', 'int16', 'white', 'JPEG 2000')  # Pillow reads these otherwise, or not at all


@pytest.mark.filterwarnings('ignore::rasterio.errors.NotGeoreferencedWarning')
@pytest.mark.parametrize('kind', FILES)
def test_every_door_shows_the_same(kind: str, model: torch.nn.Module, tmp_path: Path) -> None:
    write, pixels = FILES[kind]
    path = write(tmp_path)
    if pixels is None:  # lossy, in a way of its own
        pixels = np.array(ImageOps.exif_transpose(Image.open(path)).convert('RGB'))
    expected = mmseg_volo.predict(model, pixels).mask
    assert len(np.unique(expected)) > 1
    given: list[Any] = [str(path), path, path.read_bytes(), torch.from_numpy(pixels).permute(2, 0, 1)]
    if not any(name in kind for name in NOT_PILS):
        given.append(Image.open(path))
    for one in given:
        np.testing.assert_array_equal(to_rgb(one), pixels)
        assert np.array_equal(mmseg_volo.predict(model, one).mask, expected)
    (written,) = predict_files(model, [str(path)], tmp_path / 'out', Options(['masks']))
    assert np.array_equal(mask_of(written), expected)
    assert written.suffix == ('.tif' if 'Geo' in kind or 'geo' in kind else '.png')
    item = dict(img_path=str(path), seg_map_path=str(tmp_path / 'label.png'), seg_fields=[])
    Image.fromarray(np.zeros(pixels.shape[:2], np.uint8)).save(item['seg_map_path'])
    crop = LoadRandomCrop(pixels.shape[1::-1], (1.0, 1.0), pixels.shape[:2], use_cache=False)
    for step in (crop, LoadRGBImage()):  # of a training, and of its validation
        loaded = step({**item, 'label_map': None, 'reduce_zero_label': False})
        np.testing.assert_array_equal(loaded['img'][..., ::-1], pixels)


@pytest.mark.parametrize('kind', ['bytes', 'array', 'tensor', 'path', 'GeoTIFF'])
def test_one_range_for_all(kind: str, tmp_path: Path) -> None:
    """0 to 3060, as reflectances are, in 16 bits: 12 of 256 grey levels."""
    dark = GREY.astype(np.uint16) * 12
    cv2.imwrite(str(tmp_path / 'a.png'), dark)
    given = {
        'bytes': (tmp_path / 'a.png').read_bytes(),
        'array': dark,
        'tensor': torch.from_numpy(dark.astype(np.int32)).to(torch.uint16),
        'path': tmp_path / 'a.png',
        'GeoTIFF': tiff(tmp_path / 'a.tif', dark, **UTM),
    }[kind]
    with pytest.raises(UsageError, match=r'uint16 goes from 0 to 65535, here to \d+ only, nearly black.*--value-range'):
        to_rgb(given)
    np.testing.assert_array_equal(to_rgb(given, value_range=(0, 3060)), GREY3)
    told: list[str] = []
    brighter = dark * 2  # 24 levels are taken, with a word
    assert to_rgb(brighter, tell=told.append).max() == brighter.max() >> 8 and 'grey levels' in told[0]
    to_rgb(tiff(tmp_path / 'b.tif', brighter, **UTM), tell=told.append)
    assert len(told) == 2 and 'b.tif' in told[1]


def test_what_stands_for_no_data_never_matters(model: torch.nn.Module, tmp_path: Path) -> None:
    hole = np.zeros((48, 64), bool)
    hole[:20, :30] = True
    base = np.clip(RGB, 1, 254)
    filled = base.copy()
    filled[hole] = NODATA_RGB
    expected = np.where(hole, 255, mmseg_volo.predict(model, filled).mask)
    for nodata, dtype in ((0, 'uint8'), (255, 'uint8'), (65535, 'uint16'), (-9999, 'float32'), (np.nan, 'float32')):
        pixels = {'uint8': base, 'uint16': base * np.uint16(257), 'float32': base / np.float32(255)}[dtype].copy()
        pixels[hole] = nodata
        path = tiff(tmp_path / 'a.tif', pixels, photometric='RGB', nodata=nodata, **UTM)
        assert np.array_equal(mmseg_volo.predict(model, path).mask, expected)
        (written,) = predict_files(model, [str(path)], tmp_path / 'out', Options(['masks']), overwrite=True)
        assert np.array_equal(mask_of(written), expected)
        np.testing.assert_array_equal(LoadRGBImage()(dict(img_path=str(path)))['img'][hole], [[104, 116, 124]] * 600)


def test_no_data_of_other_images_is_their_mean(tmp_path: Path) -> None:
    load = LoadMultiBandImage([100.0, 200.0], [10.0, 10.0])
    pixels = np.full((8, 8, 2), 150, np.float32)
    pixels[0, 0], pixels[0, 1, 1] = -9999, np.nan
    wanted = np.tile(np.float32([5, -5]), (8, 8, 1))
    wanted[0, 0], wanted[0, 1, 1] = 0, 0
    path = tiff(tmp_path / 'a.tif', pixels, nodata=-9999, **UTM)
    for item in (dict(img_path=str(path)), dict(img=path.read_bytes())):
        np.testing.assert_array_equal(load(item)['img'], wanted)
    pixels[0, 0] = np.nan
    np.testing.assert_array_equal(load(dict(img=pixels))['img'], wanted)


def test_statistics_of_a_training_leave_no_data_out(tmp_path: Path) -> None:
    from mmseg_volo.autotrain.image_stats import collect_stats

    pixels = np.random.default_rng(0).integers(1000, 2000, (16, 16, 4)).astype(np.uint16)
    whole = tiff(tmp_path / 'a.tif', pixels, **UTM)
    pixels = pixels.copy()
    pixels[:, 8:] = 65535
    holed = tiff(tmp_path / 'b.tif', pixels, nodata=65535, **UTM)
    (every, some) = collect_stats([(whole, None), (holed, None)])
    assert every.sums[0].tolist() == [256] * 4 and some.sums[0].tolist() == [128] * 4
    np.testing.assert_allclose(some.sums[1], pixels[:, :8].astype(float).sum((0, 1)))


def test_a_training_on_tiffs_validates_what_it_predicts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """RGBA TIFFs: OpenCV, with which mmseg validates, multiplies alpha in."""
    from mmengine.config import Config

    from mmseg_volo_cli import main

    monkeypatch.chdir(tmp_path)
    fd.write(
        tmp_path / 'data', 4, image=lambda path, rgb: Image.fromarray(rgb).convert('RGBA').save(path), suffix='.tif'
    )
    assert main('train --data data --model caformer_s18 --weights none --work-dir work --plan-only'.split()) == 0
    cfg = Config.fromfile('work/recipe/work.py')
    assert cfg.test_pipeline[0]['type'] == cfg.tta_pipeline[0]['type'] == 'LoadRGBImage'


def test_threads_share_a_model_and_leave_no_trace(model: torch.nn.Module) -> None:
    images = [scenes.scene(seed, 32, 40)[0] for seed in range(8)]
    expected = [mmseg_volo.predict(model, image).mask for image in images]
    before, faults = DefaultScope.get_current_instance(), []

    def work(first: int) -> None:
        try:
            for i in range(30):
                at = (first + i) % 8
                windows = 32 if i % 3 == 0 else None
                found = mmseg_volo.predict(model, images[at], windows=windows).mask
                if windows is None and not np.array_equal(found, expected[at]):
                    faults.append(f'another mask of image {at}')
        except Exception as error:
            faults.append(repr(error))

    threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults and DefaultScope.get_current_instance() is before


SENTENCES = {
    'expected a path, got a data URL of 40 characters: give base64': lambda _: f'data:image/png;base64,{"A" * 18}',
    'https://x.org/a.jpg is a URL: download it first': lambda _: 'https://x.org/a.jpg',
    'expected a path, got a text of 5000 characters': lambda _: 'A' * 5000,
    'is a folder: give one image': lambda folder: folder,
    'no image at .*none.jpg': lambda folder: folder / 'none.jpg',
    'from 0 to 1, here from 0 to 1.0021': lambda _: np.array([[0, 1.0021]], np.float32),
    'a.heic is a HEIC file .*convert it': lambda folder: _file(folder, 'a.heic', b'\0\0\0\x18ftypheic' + b'\0' * 50),
    'a.pcx is a PCX file, of a kind that is not read': lambda folder: pillow('.pcx', Image.fromarray(RGB))(folder),
    'a.vrt is a virtual raster': lambda folder: _file(folder, 'a.vrt', b'<VRTDataset/>'),
    'a.jpg is a web page': lambda folder: _file(folder, 'a.jpg', b'<!DOCTYPE html><html>'),
    'a.png is a pointer of Git LFS': lambda folder: _file(
        folder, 'a.png', b'version https://git-lfs.github.com/spec/v1'
    ),
    r'a.png \(0 bytes\) is not a readable picture': lambda folder: _file(folder, 'a.png', b''),
    r'a.tif \(9 bytes\) is not a readable picture': lambda folder: _file(folder, 'a.tif', b'II*\0hello'),
}


def _file(folder: Path, name: str, content: bytes) -> Path:
    (folder / name).write_bytes(content)
    return folder / name


@pytest.mark.parametrize('message', SENTENCES)
def test_what_is_no_image_is_one_sentence(message: str, model: torch.nn.Module, tmp_path: Path) -> None:
    with pytest.raises((UsageError, FileNotFoundError), match=message) as error:
        mmseg_volo.predict(model, SENTENCES[message](tmp_path))
    assert len(str(error.value)) < 300


def test_rounding_beyond_one_is_no_error(model: torch.nn.Module) -> None:
    image = SHARE.copy()
    image[0, 0], image[0, 1] = 1.0000002, -1e-7
    clean = RGB.copy()
    clean[0, 0], clean[0, 1] = 255, 0
    np.testing.assert_array_equal(to_rgb(image), clean)
