"""Polygons as RFC 7946 has them, everywhere on the globe."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

rasterio = pytest.importorskip('rasterio', reason='rasterio makes polygons: pip install rasterio')
pytest.importorskip('shapely', reason='shapely cuts polygons: pip install shapely')
from rasterio.crs import CRS  # noqa: E402
from rasterio.transform import Affine, from_origin  # noqa: E402
from rasterio.warp import transform as warp  # noqa: E402
from shapely.geometry import mapping  # noqa: E402

from mmseg_volo.inference.antimeridian import cut  # noqa: E402
from mmseg_volo.inference.areas import PixelAreas  # noqa: E402
from mmseg_volo.inference.georeference import WGS84, Ground  # noqa: E402
from mmseg_volo.inference.polygons import geojson  # noqa: E402

GEOS = '+proj=geos +h=35785831 +lon_0=0 +sweep=y +datum=WGS84'
GROUNDS = {
    'UTM': ('EPSG:32633', from_origin(4e5, 5e6, 10, 10)),
    'UTM over the antimeridian': ('EPSG:32601', from_origin(1e5, 6.5e6, 3000, 3000)),
    'rotated UTM': ('EPSG:32633', Affine(8, 3, 4e5, 3, -8, 5e6)),
    'rows go up': ('EPSG:32733', Affine(10, 0, 4e5, 0, 10, 7e6)),
    'a millimetre': ('EPSG:32633', from_origin(4e5, 5e6, 1e-3, 1e-3)),
    'globe': ('EPSG:4326', from_origin(-180, 90, 3, 3)),
    'globe from 0 to 360': ('EPSG:4326', from_origin(0, 90, 3, 3)),
    'pixels at the poles': ('EPSG:4326', Affine(3, 0, -1.5, 0, -3, 91.5)),
    'degrees over the antimeridian': ('EPSG:4326', Affine(0.1, 0.03, 175, 0.02, -0.1, 50)),
    'Web Mercator, all': ('EPSG:3857', from_origin(-20037508.342789244, 20037508.342789244, 333958.472, 667916.945)),
    'Web Mercator, beyond': ('EPSG:3857', from_origin(19.6e6, 8e6, 9000, 9000)),
    'plate carree, all': (
        'EPSG:4087',
        from_origin(-20037508.342789244, 10018754.171394622, 333958.4723798207, 333958.4723798207),
    ),
    'a pole at a corner': ('EPSG:3031', from_origin(-3.6e6, 1.8e6, 60000, 60000)),
    'a pole in a pixel': ('EPSG:3413', from_origin(-3.63e6, 1.83e6, 60000, 60000)),
}
SHAPE = (60, 120)


def masks() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    mixed = np.kron(rng.integers(0, 3, (9, 18)), np.ones((7, 7)))[: SHAPE[0], : SHAPE[1]].astype(np.uint8)
    mixed[rng.random(SHAPE) < 0.1] = 2
    rings = np.hypot(*(np.mgrid[: SHAPE[0], : SHAPE[1]] - np.array([30, 60])[:, None, None]))
    return {'mixed': mixed, 'one': np.zeros(SHAPE, np.uint8), 'rings': np.digitize(rings, [8.5, 21.5]).astype(np.uint8)}


def features(mask: np.ndarray, ground: Ground, lost: list[str] | None = None) -> list[dict[str, Any]]:
    text = b''.join(geojson(mask, ['a', 'b', 'c'], ground, None, lost))
    found = json.loads(text, parse_constant=lambda name: pytest.fail(f'{name} is no JSON'))
    assert set(found) == {'type', 'units', 'features'}  # no member crs
    return found['features']


def polygons(feature: dict[str, Any]) -> list[list[np.ndarray]]:
    geometry = feature['geometry']
    several = geometry['coordinates'] if geometry['type'] == 'MultiPolygon' else [geometry['coordinates']]
    return [[np.array(ring) for ring in rings] for rings in several]


def area(rings: Sequence[np.ndarray]) -> float:
    """Square metres on WGS 84 of straight edges in longitude and latitude."""
    total = 0.0
    for ring in rings:
        heights = [WGS84.height(y) for y in (ring[:-1, 1], (ring[:-1, 1] + ring[1:, 1]) / 2, ring[1:, 1])]
        total -= float(np.diff(np.radians(ring[:, 0])) @ (heights[0] + 4 * heights[1] + heights[2]) / 6)
    return total * WGS84.radius**2


def signed_area(ring: np.ndarray) -> float:
    """Positive if the closed ring (N, 2) is counterclockwise where y goes up."""
    x, y = (ring - ring[0]).T
    return float((x[:-1] * y[1:] - x[1:] * y[:-1]).sum() / 2)


def check_rings(rings: Sequence[np.ndarray]) -> None:
    for i, ring in enumerate(rings):
        assert len(ring) >= 4 and (ring[0] == ring[-1]).all()
        assert (np.abs(ring) <= [180, 90]).all()
        assert (signed_area(ring) > 0) == (i == 0)  # the right-hand rule
        assert len(np.unique(ring[:-1], axis=0)) == len(ring) - 1  # touches itself nowhere


@pytest.mark.parametrize('kind', ['mixed', 'one', 'rings'])
@pytest.mark.parametrize('where', GROUNDS)
def test_polygons_are_the_mask_everywhere(where: str, kind: str) -> None:
    crs, transform = GROUNDS[where]
    ground, mask = Ground(transform, CRS.from_user_input(crs)), masks()[kind]
    found, lost = features(mask, ground, lost := []), lost
    assert not lost and sum(f['properties']['pixels'] for f in found) == mask.size
    sums = np.zeros(3)
    for feature in found:
        parts = polygons(feature)
        for rings in parts:
            check_rings(rings)
        told = feature['properties']['square_metres']
        tolerance = 1e-3 if where == 'a millimetre' else 1e-4  # coordinates are to a tenth of a millimetre
        assert sum(map(area, parts)) == pytest.approx(told, rel=tolerance)
        sums[feature['properties']['index']] += told
    assert sums == pytest.approx(PixelAreas(ground, *SHAPE).sums(mask, 0, 3), rel=1e-3)


def test_a_cut_at_the_antimeridian() -> None:
    (feature,) = features(np.zeros((2, 4), np.uint8), Ground(from_origin(178, 10, 1, 1), CRS.from_epsg(4326)))
    assert feature['geometry']['type'] == 'MultiPolygon'
    bounds = [(*rings[0].min(0), *rings[0].max(0)) for rings in polygons(feature)]
    assert sorted(bounds) == [(-180, 8, -178, 10), (178, 8, 180, 10)]
    (feature,) = features(np.zeros((2, 2), np.uint8), Ground(from_origin(178, 10, 1, 1), CRS.from_epsg(4326)))
    assert feature['geometry']['type'] == 'Polygon'  # one that ends there is not cut


def test_a_polygon_about_a_pole_is_closed_over_it() -> None:
    ground = Ground(from_origin(-1e6, 1e6, 2e4, 2e4), CRS.from_epsg(3031))
    (feature,) = features(np.zeros((100, 100), np.uint8), ground)
    ((ring,),) = polygons(feature)
    assert (ring == [-180, -90]).all(1).any() and (ring == [180, -90]).all(1).any()
    assert feature['properties']['square_metres'] == pytest.approx(area([ring]), rel=1e-6)


def test_edges_are_as_long_as_they_are_straight() -> None:
    crs = CRS.from_epsg(32633)
    ground = Ground(from_origin(3e5, 8e6, 100, 100), crs)
    (feature,) = features(np.zeros((2, 4000), np.uint8), ground)
    ((ring,),) = polygons(feature)
    middles = (ring[1:] + ring[:-1]) / 2
    x, y = map(np.array, warp('EPSG:4326', crs, *middles.T))
    off = np.min([np.abs(x - 3e5), np.abs(x - 7e5), np.abs(y - 8e6), np.abs(y - 8e6 + 200)], 0)
    assert off.max() < 1 and len(ring) < 600  # metres; two points would be 2 km off


def test_a_datum_is_shifted() -> None:
    crs = CRS.from_epsg(31467)
    (feature,) = features(np.zeros((1, 1), np.uint8), Ground(from_origin(3.5e6, 5.5e6, 10, 10), crs))
    corner = np.array([8.998964, 49.636711])  # on Bessel's ellipsoid (9, 49.637816), 140 metres from there
    assert np.abs(np.array(feature['geometry']['coordinates'][0]) - corner).max(1).min() < 1e-6


def test_polygons_without_a_place_are_told() -> None:
    mask = np.zeros((100, 100), np.uint8)
    mask[40:60, 40:60] = 1
    lost: list[str] = []
    (feature,) = features(mask, Ground(from_origin(-5.5e6, 5.5e6, 1.1e5, 1.1e5), CRS.from_user_input(GEOS)), lost)
    assert feature['properties']['class'] == 'b'
    assert lost == ['1 polygons are left out: they have corners without longitude and latitude']


def test_a_first_polygon_off_the_ground_turns_no_other() -> None:
    mask = np.zeros((100, 100), np.uint8)
    mask[40:60, 40:60] = mask[:2, :2] = 1
    up = Affine(1.1e5, 0, -5.5e6, 0, 1.1e5, -5.5e6)
    (feature,) = features(mask, Ground(up, CRS.from_user_input(GEOS)))
    check_rings(polygons(feature)[0])
    assert feature['properties']['square_metres'] == pytest.approx(4.9296e12, rel=1e-4)


def test_small_pixels_stay_apart_without_a_crs() -> None:
    mask = np.arange(4, dtype=np.uint8).reshape(2, 2) % 3
    found = features(mask, Ground(from_origin(10, 50, 1e-5, 1e-5)))
    assert all(abs(signed_area(polygons(f)[0][0])) == pytest.approx(1e-10, rel=1e-3) for f in found)


def test_a_hole_that_touches_the_cut() -> None:
    outline = np.array([[170, 0], [190, 0], [190, 20], [170, 20], [170, 0]], float)
    hole = np.array([[180, 5], [175, 10], [180, 15], [185, 10], [180, 5]], float)
    parts = polygons(dict(geometry=mapping(cut([outline, hole]))))
    for rings in parts:
        check_rings(rings)
    assert sum(signed_area(ring) for rings in parts for ring in rings) == pytest.approx(400 - 50)
