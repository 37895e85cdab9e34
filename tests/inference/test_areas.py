"""Square metres of pixels on the ellipsoid, against geodesics and closed formulas."""

from __future__ import annotations

import csv
import io
import json
import math
import os

import numpy as np
import pytest

from mmseg_volo.inference.areas import digits, table

rasterio = pytest.importorskip('rasterio', reason='rasterio knows coordinate reference systems: pip install rasterio')
pytest.importorskip('shapely', reason='shapely makes polygons: pip install shapely')
from rasterio.crs import CRS  # noqa: E402
from rasterio.transform import Affine, from_origin  # noqa: E402

from mmseg_volo.inference.areas import PixelAreas  # noqa: E402
from mmseg_volo.inference.georeference import Ground  # noqa: E402
from mmseg_volo.inference.polygons import geojson  # noqa: E402

NAN = math.nan

# CRS, transform, and square metres of the pixels (0, 0) and (59, 59): by pyproj's Geod.polygon_area_perimeter on the
# CRS's ellipsoid (WGS 84 for the sphere), with 400 points along each edge
PIXELS = {
    'longitude and latitude': ('EPSG:4326', (0.5, 0, 10, 0, -0.5, 60), 1.5658474e09, 2.6673005e09),
    'grads from Paris': ('EPSG:4807', (0.01, 0, 0, 0, -0.01, 50), 709833.19, 716289.47),
    'Web Mercator': ('EPSG:3857', (10, 0, 1113194.9, 0, -10, 8399737.9), 25.083924, 25.087929),
    'UTM': ('EPSG:32633', (10, 0, 400000, 0, -10, 5000000), 100.05548, 100.05577),
    'rows go up': ('EPSG:32733', (10, 0, 400000, 0, 10, 7000000), 100.05533, 100.05562),
    'rotated': ('EPSG:32633', (8, 3, 400000, 3, -8, 5000000), 73.040652, 73.040877),
    'rotated degrees': ('EPSG:4326', (0.001, 0.0003, 10, 0.0002, -0.001, 50), 8453.2001, 8461.404),
    'feet': ('EPSG:2263', (10, 0, 950000, 0, -10, 250000), 9.2904363, 9.2904368),
    'conformal cone': ('EPSG:2154', (100, 0, 300000, 0, -100, 7000000), 9981.9921, 9983.0495),
    'Bessel': ('EPSG:31467', (10, 0, 3550000, 0, -10, 5500000), 99.993853, 99.993713),
    'polar': ('EPSG:3031', (3000, 0, -90000, 0, -3000, 90000), 9509009.5, 9509009.5),
    'sphere': ('+proj=sinu +R=6371007.181', (463.3127, 0, 1e6, 0, -463.3127, 5e6), 215135.13, 215122.73),
    'ESRI': ('ESRI:54009', (20000, 0, -8e6, 0, -20000, 7e6), 4.0143846e08, 4.004064e08),
    'Moon': ('IAU_2015:30110', (1000, 0, 1e5, 0, -1000, 1e6), 839037.31, 857026.11),
}


def areas(crs: str, transform: Affine, height: int, width: int) -> PixelAreas:
    return PixelAreas(Ground(transform, CRS.from_user_input(crs)), height, width)


@pytest.mark.parametrize('case', PIXELS)
def test_a_pixel_is_as_large_as_geodesics_say(case: str) -> None:
    crs, transform, *expected = PIXELS[case]
    found = areas(crs, Affine(*transform), 60, 60).of(0, 60)
    assert [found[0, 0], found[59, 59]] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    'transform',
    [
        from_origin(-180, 90, 1, 1),
        from_origin(0, 90, 1, 1),
        Affine(1, 0, -180, 0, 1, -90),
        Affine(1, 0, -0.5, 0, -1, 90.5),
    ],
)
def test_the_whole_globe(transform: Affine) -> None:
    rows = 181 if transform.f > 90 else 180  # of the last one the pixels' centres lie at the poles
    a, f = 6378137.0, 1 / 298.257223563
    e = math.sqrt(f * (2 - f))
    surface = 2 * math.pi * a**2 * (1 + (1 - e**2) / e * math.atanh(e))
    assert areas('EPSG:4326', transform, rows, 360).of(0, rows).sum() == pytest.approx(surface, rel=1e-12)
    assert surface / 1e6 == pytest.approx(510_065_621.724, abs=1e-3)


@pytest.mark.parametrize(('rows', 'columns', 'cells'), [(4096, 64, True), (64, 2, False)])
def test_from_pole_to_pole_of_a_projection(rows: int, columns: int, cells: bool) -> None:
    side = 20037508.342789244
    found = areas('EPSG:3857', from_origin(-side, side, 2 * side / rows, 2 * side / rows), rows, columns)
    assert (found.cell > 1) == cells
    edge = 85.0511287798066  # degrees: between here and there
    zone = areas('EPSG:4326', from_origin(-180, edge, 360 * columns / rows, 2 * edge), 1, 1)
    assert found.of(0, rows).sum() == pytest.approx(zone.of(0, 1).sum(), rel=2e-6)


def test_classes_are_summed_by_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    found = areas('EPSG:3857', from_origin(0, 9e6, 2000, 2000), 200, 150)
    mask = np.random.default_rng(0).choice([0, 1, 2, 255], (200, 150)).astype(np.uint8)
    whole = found.of(0, 200)
    expected = [whole[mask == i].sum() for i in range(4)]
    monkeypatch.setattr('mmseg_volo.inference.areas.PIECE', 64 * 150)
    total = sum(found.sums(mask[top : top + 37], top, 4) for top in range(0, 200, 37))
    assert total == pytest.approx(expected, rel=1e-12) and found.missing == 0
    smaller = areas('EPSG:3857', from_origin(0, 9e6, 2000, 2000), 200, 150)
    smaller.cell = 1
    assert whole == pytest.approx(smaller.of(0, 200), rel=1e-5)


def test_beside_the_disk_of_a_satellite_is_no_ground() -> None:
    geos = '+proj=geos +h=35785831 +lon_0=0 +sweep=y +datum=WGS84'
    found = areas(geos, from_origin(-5.6e6, 5.6e6, 11.2e6 / 140, 11.2e6 / 140), 140, 140)
    sums = found.sums(np.zeros((140, 140), np.uint8), 0, 1)
    whole = found.of(0, 140)
    y, x = (np.mgrid[:140, :140] + 0.5 - 70) * 11.2e6 / 140
    assert np.isnan(whole[np.hypot(x, y) > 5.6e6]).all() and np.isfinite(whole[np.hypot(x, y) < 5.2e6]).all()
    assert found.missing == np.isnan(whole).sum() and sums[0] == pytest.approx(np.nansum(whole))
    assert whole[70, 70] == pytest.approx((11.2e6 / 140) ** 2, rel=1e-2)  # nearly as at the point below


def test_without_a_ground() -> None:
    transform = from_origin(0, 0, 1, 1)
    local = CRS.from_wkt('LOCAL_CS["site",UNIT["metre",1]]')
    assert all(
        g.ellipsoid is None for g in (Ground(), Ground(transform), Ground(None, local), Ground(transform, local))
    )
    assert Ground(transform, local).units == 'crs units'


def test_the_table() -> None:
    entries = [
        dict(file='a', pixels=[3, 0], square_metres=[1234.56789, 0.0]),
        dict(file='b', pixels=[1, 1]),
        dict(file='c', pixels=[1, 1], square_metres=4.0),  # of a pixel, by an earlier version, in nominal metres
    ]
    found = [row['square_metres'] for row in csv.DictReader(io.StringIO(table(entries, ['x', 'y']).decode()))]
    assert found == ['1234.568', '0.000', '', '', '', '']
    assert digits(0.000123456789) == '0.000123457'


def test_names_of_any_bytes_are_kept() -> None:
    name = os.fsdecode(b'caf\xe9.png')
    assert b'\ncaf\xe9.png,road,0,' in table([dict(file=name, pixels=[1])], ['road'])


@pytest.mark.parametrize(
    'transform',
    [
        (NAN, 0, 0, 0, NAN, 0),
        (1, 0, NAN, 0, -1, 0),
        (math.inf, 0, 0, 0, -1, 0),
        (0, 0, 5, 0, 0, 5),
        (1, 0, 5, 0, 0, 5),
        (1, 1, 5, 1, 1, 5),
        (1e-100, 0, 10, 0, -1e-100, 50),
        (1e9, 0, 0, 0, -1e9, 0),
    ],
)
def test_a_transform_that_cannot_be_is_no_ground(transform: tuple[float, ...]) -> None:
    ground = Ground(Affine(*transform), CRS.from_epsg(4326))
    assert ground.ellipsoid is None and ground.units == ('crs units' if transform[0] == 1e9 else 'pixels')
    usual = dict(driver='GTiff', width=4, height=3, count=1, dtype='uint8', crs='EPSG:4326')
    with rasterio.MemoryFile() as memory:
        with memory.open(transform=Affine(*transform), **usual) as file:
            file.write(np.tile(np.array([0, 0, 1, 1], np.uint8), (1, 3, 1)))
        with memory.open() as file:
            found = json.loads(b''.join(geojson(rasterio.band(file, 1), ['a', 'b'], ground)))
    assert [feature['properties'] for feature in found['features']] == [
        {'class': 'a', 'index': 0, 'pixels': 6},
        {'class': 'b', 'index': 1, 'pixels': 6},
    ]
