"""`mmseg-volo predict` on GeoTIFFs: by windows, with what the whole gives, georeference and blocks kept."""

from __future__ import annotations

import csv
import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import mmseg_volo
from mmseg_volo.datasets.synthetic import scenes
from mmseg_volo.inference import Options, predict_files
from mmseg_volo.inference import raster_io as rasters
from mmseg_volo.inference import segment as segmenting
from mmseg_volo.io import raster_pixels
from mmseg_volo_cli import main

rasterio = pytest.importorskip('rasterio', reason='rasterio reads and writes GeoTIFFs: pip install rasterio')
from helpers.geotiffs import UTM, scene, write  # noqa: E402
from rasterio.control import GroundControlPoint  # noqa: E402
from rasterio.features import rasterize  # noqa: E402
from rasterio.transform import from_origin  # noqa: E402
from rasterio.warp import transform_geom  # noqa: E402

LONLAT = dict(crs='EPSG:4326', transform=from_origin(10, 50, 1e-5, 1e-5))
LAYOUTS = {
    'tiles': dict(tiled=True, blockxsize=64, blockysize=32, compress='lzw'),
    'strips': dict(tiled=False, blockysize=7),
    'one strip': dict(tiled=False, blockysize=4000, compress='deflate'),
    'lossy': dict(tiled=True, blockxsize=64, blockysize=64, compress='jpeg'),
}


@pytest.mark.parametrize('layout', LAYOUTS)
def test_the_same_as_the_whole_in_memory(layout: str, model: torch.nn.Module, tmp_path: Path) -> None:
    path = write(tmp_path / 'a.tif', scene(), **LAYOUTS[layout])
    kinds = ['masks', 'colours', 'overlays', 'confidence', 'probabilities', 'areas']
    predict_files(model, [str(path)], tmp_path / 'out', Options(kinds, windows=64))
    with rasterio.open(path) as source:
        pixels = source.read().transpose(1, 2, 0)
        whole = mmseg_volo.predict(model, pixels, ['confidence', 'probability'], windows=64)
        for kind, count in (('masks', 1), ('colours', 3), ('confidence', 1), ('probabilities', 10)):
            with rasterio.open(tmp_path / f'out/{kind}/a.tif') as found:
                assert (found.crs, found.transform, found.shape) == (source.crs, source.transform, source.shape)
                assert found.count == count and found.nodata is None
                if layout != 'one strip':
                    assert found.block_shapes[0] == source.block_shapes[0]
                expected = {'tiles': 'lzw'}.get(layout, 'deflate')
                assert found.profile['compress'] == expected
                values, names = found.read(), found.descriptions
            if kind == 'masks':
                assert np.array_equal(values[0], whole.mask) and len(np.unique(values)) > 1
            elif kind == 'confidence':
                assert np.array_equal(values[0], whole.confidence)
            elif kind == 'probabilities':
                assert np.array_equal(values, whole.probability)
                assert names == tuple(scenes.CLASSES)
    rows = [*csv.DictReader((tmp_path / 'out/areas.csv').open())]
    assert [int(r['pixels']) for r in rows] == np.bincount(whole.mask.ravel(), minlength=10).tolist()
    # at the central meridian of UTM a metre of the map is 1 / 0.9996 metres
    assert all(float(r['square_metres']) == pytest.approx(4 / 0.9996**2 * int(r['pixels']), 1e-6, 6e-4) for r in rows)
    assert not [*tmp_path.rglob('.*')]


@pytest.mark.parametrize('where', ['utm', 'lonlat', 'no CRS', 'ground control points'])
def test_polygons_lie_where_the_mask_does(where: str, model: torch.nn.Module, tmp_path: Path) -> None:
    points = [GroundControlPoint(r, c, 10 + c / 1e4, 50 - r / 1e4) for r, c in ((0, 0), (0, 200), (150, 0), (150, 200))]
    how = {
        'utm': UTM,
        'lonlat': LONLAT,
        'no CRS': dict(crs=None),
        'ground control points': dict(gcps=points, crs='EPSG:4326', transform=None),
    }[where]
    path = write(tmp_path / 'a.tif', scene(), **how)
    predict_files(model, [str(path)], tmp_path / 'both', Options(['masks', 'polygons']))
    predict_files(model, [str(path)], tmp_path / 'alone', Options(['polygons']))
    text = (tmp_path / 'both/polygons/a.geojson').read_text()
    assert (tmp_path / 'alone/polygons/a.geojson').read_text() == text
    assert len([p for p in (tmp_path / 'alone').rglob('*') if p.is_file()]) == 2
    found = json.loads(text)
    with rasterio.open(tmp_path / 'both/masks/a.tif') as file:
        mask, crs, transform = file.read(1), file.crs, file.transform
        if where == 'ground control points':
            assert len(file.gcps[0]) == 4 and file.gcps[1] == rasterio.crs.CRS.from_epsg(4326)
    units = {'no CRS': 'crs units', 'ground control points': 'pixels'}.get(where, 'degrees')
    assert found['units'] == units
    shapes = [
        (transform_geom('EPSG:4326', crs, f['geometry']) if units == 'degrees' else f['geometry'], f['properties'])
        for f in found['features']
    ]
    drawn = rasterize([(g, p['index']) for g, p in shapes], mask.shape, 255, transform=transform, dtype='uint8')
    assert np.array_equal(drawn, mask)
    assert sum(p['pixels'] for _, p in shapes) == mask.size
    assert ('square_metres' in shapes[0][1]) == (where in ('utm', 'lonlat'))
    if where == 'utm':
        assert sum(p['square_metres'] for _, p in shapes) == pytest.approx(4 / 0.9996**2 * mask.size, 1e-5)


def test_what_has_no_place_is_told_and_the_rest_done(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    geos = dict(crs='+proj=geos +h=35785831 +lon_0=0 +sweep=y +datum=WGS84', transform=from_origin(-6e6, 6e6, 6e4, 8e4))
    points = [GroundControlPoint(r, c, 10 + c / 1e4, 50 - r / 1e4) for r, c in ((0, 0), (0, 200), (150, 0), (150, 200))]
    mercator = dict(crs='EPSG:3857', transform=from_origin(1113194.9, 8399737.9, 10, 10))
    hows = dict(a=geos, b=mercator, c=dict(gcps=points, crs='EPSG:4326', transform=None))
    files = [str(write(tmp_path / f'{name}.tif', scene(), **how)) for name, how in hows.items()]
    out = tmp_path / 'out'
    command = ['predict', str(checkpoint), *files, '--out', str(out), '--device', 'cpu', '--outputs', 'polygons,areas']
    for told_before in (False, True):
        assert main(command) == 2
        told = capsys.readouterr()
        assert re.search(
            r'1 of 3 files left out: \S*a.tif: \d+ polygons are left out: they have corners with', told.err
        )
        if not told_before:
            assert re.search(r'a.tif: \d+ pixels lie off the ground and count as 0 square metres', told.out)
            assert re.search(r'c.tif: square metres are left out, as no transform and CRS say', told.out)
    assert sorted(p.name for p in (out / 'polygons').iterdir()) == ['a.geojson', 'b.geojson', 'c.geojson']
    metres = {name: [] for name in 'abc'}
    for row in csv.DictReader((out / 'areas.csv').open()):
        metres[row['file'][0]].append(row['square_metres'])
    assert sum(map(float, metres['b'])) == pytest.approx(30000 * 25.09, rel=1e-3)  # a quarter of the map's metres
    assert 0 < sum(map(float, metres['a'])) < 2.2e14 and set(metres['c']) == {''}


def test_little_is_in_memory(model: torch.nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / 'a.tif', np.tile(scene(150, 96), (1, 8, 1)), **LAYOUTS['tiles'])
    most, read = [0, 0], raster_pixels.RasterPixels.read
    flush = rasters.RasterFile._flush

    def reading(self: raster_pixels.RasterPixels, window: Any = None) -> np.ndarray:
        found = read(self, window)
        most[0] = max(most[0], found.size)
        return found

    def flushing(self: rasters.RasterFile) -> None:
        most[1] = max(most[1], self._rows.size)
        flush(self)

    monkeypatch.setattr(raster_pixels.RasterPixels, 'read', reading)
    monkeypatch.setattr(rasters.RasterFile, '_flush', flushing)
    predict_files(model, [str(path)], tmp_path / 'out', Options(['masks', 'overlays'], windows=64))
    assert most == [3 * 64 * 64, 32 * 96]


def test_what_is_too_large_to_be_seen_whole_is_seen_in_windows(
    model: torch.nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segmenting, 'WHOLE', 100 * 100)
    path = write(tmp_path / 'a.tif', scene())
    predict_files(model, [str(path)], tmp_path / 'out', Options(['masks']))
    photo = tmp_path / 'a.png'
    Image.fromarray(scene().transpose(1, 2, 0)).save(photo)
    predict_files(model, [str(photo)], tmp_path / 'photo', Options(['masks']))
    with pytest.MonkeyPatch.context() as undone:
        undone.setattr(segmenting, 'WHOLE', 2048 * 2048)  # 64 is what the model was trained on
        expected = mmseg_volo.predict(model, scene().transpose(1, 2, 0), windows=64).mask
    for given in (photo, photo.read_bytes(), path, path.read_bytes(), Image.open(photo), scene().transpose(1, 2, 0)):
        assert np.array_equal(mmseg_volo.predict(model, given).mask, expected)
    assert np.array_equal(np.array(Image.open(tmp_path / 'photo/masks/a.png')), expected)
    assert np.array_equal(rasterio.open(tmp_path / 'out/masks/a.tif').read(1), expected)
    assert model.options.mode == 'whole'


def test_a_pipeline_that_needs_all_pixels(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    resizing = mmseg_volo.load(checkpoint, device='cpu')
    resizing.cfg.test_pipeline.insert(1, dict(type='Resize', scale=(128, 96), keep_ratio=True))
    path = write(tmp_path / 'a.tif', scene())
    predict_files(resizing, [str(path)], tmp_path / 'small', Options(['masks']))
    expected = mmseg_volo.predict(resizing, scene().transpose(1, 2, 0)).mask
    assert np.array_equal(rasterio.open(tmp_path / 'small/masks/a.tif').read(1), expected)
    monkeypatch.setattr(segmenting, 'IN_MEMORY', 100 * 100)
    with pytest.raises(ValueError, match='200x150 pixels are too many for Resize of the checkpoint: --window-size 64'):
        predict_files(resizing, [str(path)], tmp_path / 'large')
    assert [p.name for p in (tmp_path / 'large').rglob('*') if p.is_file()] == ['predictions.jsonl']
    predict_files(resizing, [str(path)], tmp_path / 'windows', Options(['masks'], windows=64))


def test_a_cut_or_full_raster_leaves_nothing(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    path = write(tmp_path / 'a.tif', scene(), **LAYOUTS['tiles'])
    whole, out = path.read_bytes(), tmp_path / 'out'
    command = ['predict', str(checkpoint), str(path), '--out', str(out), '--device', 'cpu']
    path.write_bytes(whole[: len(whole) // 2])
    (tmp_path / 'b.tif').write_bytes(whole)
    assert main([*command[:3], str(tmp_path / 'b.tif'), *command[3:]]) == 2
    assert '1 of 2 files left out: ' in (error := capsys.readouterr().err) and 'a.tif cannot be read' in error
    assert sorted(p.name for p in out.rglob('*') if p.is_file()) == ['b.jpg', 'b.tif', 'predictions.jsonl']
    path.write_bytes(whole)
    monkeypatch.setattr(rasters.shutil, 'disk_usage', lambda _: SimpleNamespace(free=1000))
    assert main(command) == 2
    assert 'No space left on device); 0 of 1 files are done, and the same command continues' in capsys.readouterr().err
    assert sorted(p.name for p in out.rglob('*') if p.is_file()) == ['b.jpg', 'b.tif', 'predictions.jsonl']
    monkeypatch.undo()
    assert main(command) == 0


def test_without_rasterio_no_georeference_is_lost(
    model: torch.nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / 'a.tif', scene())
    plain = write(tmp_path / 'b.tif', scene(), crs=None, transform=None)
    monkeypatch.setitem(sys.modules, 'rasterio', None)
    with pytest.raises(ValueError, match='a.tif is a GeoTIFF: keeping its georeference needs rasterio, pip install'):
        predict_files(model, [str(path)], tmp_path / 'out')
    predict_files(model, [str(plain)], tmp_path / 'out')
    assert (tmp_path / 'out/masks/b.png').is_file()
