"""Values and bands of rasters: nodata, depths, ranges, and which bands the network sees."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

import mmseg_volo
from mmseg_volo.inference import Options, predict_files
from mmseg_volo.io import raster_pixels
from mmseg_volo.io.value_range import NODATA_RGB
from mmseg_volo_cli import main

rasterio = pytest.importorskip('rasterio', reason='rasterio reads and writes GeoTIFFs: pip install rasterio')

from helpers.geotiffs import scene, write  # noqa: E402


def test_nodata_stays_nodata(model: torch.nn.Module, tmp_path: Path) -> None:
    pixels = np.maximum(scene(), 1)
    pixels[:, 40:90, 30:120] = 0
    path = write(tmp_path / 'a.tif', pixels, nodata=0)
    kinds = ['masks', 'confidence', 'overlays', 'polygons', 'areas']
    predict_files(model, [str(path)], tmp_path / 'out', Options(kinds))
    hole = np.zeros((150, 200), bool)
    hole[40:90, 30:120] = True
    filled = pixels.transpose(1, 2, 0).copy()
    filled[hole] = NODATA_RGB
    whole = mmseg_volo.predict(model, filled)
    with rasterio.open(tmp_path / 'out/masks/a.tif') as file:
        mask = file.read(1)
        assert file.nodata == 255 and np.array_equal(file.dataset_mask() == 0, hole)
    for given in (path, path.read_bytes()):
        found = mmseg_volo.predict(model, given, ['confidence'])
        assert np.array_equal(found.mask, mask) and np.array_equal(np.isnan(found.confidence), hole)
    assert np.array_equal(mask[~hole], whole.mask[~hole])
    with rasterio.open(tmp_path / 'out/confidence/a.tif') as file:
        assert np.array_equal(np.isnan(file.read(1)), hole)
    features = json.loads((tmp_path / 'out/polygons/a.geojson').read_text())['features']
    pixels_of = [int(row['pixels']) for row in csv.DictReader((tmp_path / 'out/areas.csv').open())]
    assert sum(f['properties']['pixels'] for f in features) == sum(pixels_of) == (~hole).sum()


@pytest.mark.parametrize('kind', ['uint16', 'float32', 'int16 with range', 'four bands', 'bands', 'grey', 'RGBA'])
def test_bands_and_values(kind: str, model: torch.nn.Module, tmp_path: Path) -> None:
    rgb, how, options = scene(), {}, {}
    given = {
        'uint16': rgb.astype(np.uint16) << 8,
        'float32': rgb.astype(np.float32) / 255,
        'int16 with range': rgb.astype(np.int16) * 10 - 1000,
        'four bands': np.concatenate([rgb, rgb[:1]]),
        'bands': np.concatenate([rgb[:1] // 2, rgb[::-1]]),
        'grey': rgb[:1],
        'RGBA': np.concatenate([rgb, np.full_like(rgb[:1], 255)]),
    }[kind]
    if kind == 'int16 with range':
        options = dict(value_range=(-1000, 1550))
    elif kind == 'bands':
        options, how = dict(bands=(4, 3, 2)), dict(photometric='MINISBLACK')
    elif kind in ('four bands', 'RGBA'):
        how = dict(photometric='RGB', alpha='unspecified' if kind == 'RGBA' else 'no')
    path = write(tmp_path / 'a.tif', given, **how)
    predict_files(model, [str(path)], tmp_path / 'out', Options(['masks', 'overlays'], **options))
    seen = np.repeat(rgb[:1], 3, 0) if kind == 'grey' else rgb
    expected = mmseg_volo.predict(model, seen.transpose(1, 2, 0)).mask
    with rasterio.open(tmp_path / 'out/masks/a.tif') as file:
        assert np.array_equal(file.read(1), expected)


def test_bands_of_models_for_other_images(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 3000, (4, 30, 40)).astype(np.uint16)
    loading = dict(type='LoadMultiBandImage', mean=[1, 2, 3, 4], std=[5, 6, 7, 8], dtype='uint16')
    with rasterio.open(write(tmp_path / 'a.tif', pixels)) as raster:
        found = raster_pixels.RasterPixels(raster, loading)
        assert found.shape == (4, 30, 40)
        expected = (pixels - np.arange(1, 5.0)[:, None, None]) / np.arange(5.0, 9)[:, None, None]
        np.testing.assert_allclose(found[:, 3:9, 5:50].numpy(), expected[:, 3:9, 5:50].astype(np.float32), rtol=1e-5)
        assert found.picture(((0, 1), (0, 40))).shape == (3, 1, 40)
        with pytest.raises(ValueError, match='a.tif is of uint16, expected float32, as in training'):
            raster_pixels.RasterPixels(raster, {**loading, 'dtype': 'float32'})
        with pytest.raises(ValueError, match='a.tif has 4 bands .* the network takes 2'):
            raster_pixels.RasterPixels(raster, dict(type='LoadMultiBandImage', mean=[1, 2], std=[1, 2]))


WRONG = {
    'a.tif has 5 bands .* the network takes 3: choose them with --bands': (np.zeros((5, 9, 9), np.uint8), []),
    '--bands 1,2,9: expected 3 of its 5 bands': (np.zeros((5, 9, 9), np.uint8), ['--bands', '1,2,9']),
    'floating point goes from 0 to 1, .*--value-range': (np.full((3, 9, 9), 7, np.float32), []),
    'uint16 goes from 0 to 65535, here to 200 only, .*--value-range': (np.full((3, 9, 9), 200, np.uint16), []),
}


@pytest.mark.parametrize('message', WRONG)
def test_what_cannot_be_seen_is_said(
    message: str, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    pixels, options = WRONG[message]
    path = write(tmp_path / 'a.tif', pixels)
    out = tmp_path / 'out'
    assert main(['predict', str(checkpoint), str(path), '--out', str(out), '--device', 'cpu', *options]) == 2
    error = capsys.readouterr().err
    assert re.search(f'1 of 1 files left out: .*{message}', error)
    assert [p.name for p in out.rglob('*') if p.is_file()] == ['predictions.jsonl']
