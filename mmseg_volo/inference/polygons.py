"""Converts masks to polygons in GeoJSON (RFC 7946)."""

from __future__ import annotations

import contextlib
import importlib
import itertools
import json
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmseg_volo.errors import UsageError
from mmseg_volo.inference.areas import digits
from mmseg_volo.inference.georeference import Ellipsoid, Ground, is_usable, mapped

with contextlib.suppress(ImportError):  # `need_rasterio` reports it when polygons are requested
    import shapely
    from shapely.geometry import shape

    from mmseg_volo.inference.antimeridian import on_map, unrolled

DECIMALS = {'degrees': 9, 'pixels': 0, 'crs units': 4}  # a tenth of a millimetre; more where pixels are small
DEGREE = 111e3  # metres
BATCH = 2000  # polygons whose coordinates are transformed at once
STRAY = 0.003  # pixels by which an edge's middle may deviate from the ground
DIVIDED = 24  # maximum number of times that an edge is halved

Points = NDArray[np.float64]  # (N, 2)
Numbers = NDArray[np.intp]


def need_rasterio(what: str) -> None:
    """Check that rasterio and shapely, which make polygons, are installed.

    Raises:
        UsageError: one of them is not.
    """
    for package, module in (('rasterio', 'rasterio.features'), ('shapely', 'shapely')):
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise UsageError(f'{what}: this needs {package}, pip install {package}') from error


def geojson(
    mask: Any, classes: Sequence[str], ground: Ground, nodata: int | None = None, lost: list[str] | None = None
) -> Iterator[bytes]:
    """Convert a mask to a FeatureCollection with one feature per area of a class whose pixels are connected by edges.

    A feature's properties are `class`, `index`, `pixels` and, if the ground is known, `square_metres` on the CRS's
    ellipsoid. The foreign member `units` names the unit of the coordinates: degrees (longitude, latitude), pixels
    (column, row, of corners; the image's upper left corner is 0, 0), or crs units if the georeference has no CRS or one
    of another planet. In degrees, long edges get as many points as keep them within STRAY pixels of the ground, and
    polygons are cut at the antimeridian and closed over a pole. Polygons with a corner that has no longitude are left
    out.

    Args:
        mask: class indices (H, W), or a band of an open raster, `rasterio.band(raster, 1)`.
        nodata: an index to leave out.
        lost: receives a sentence, with the last piece, if polygons were left out.

    Yields:
        The file's content, piece by piece.
    """
    import rasterio.features

    yield f'{{"type": "FeatureCollection", "units": "{ground.units}", "features": ['.encode()
    if not isinstance(mask, np.ndarray) and not is_usable(mask.ds.transform):
        mask = mask.ds.read(1)
    shapes = ((geometry, int(i)) for geometry, i in rasterio.features.shapes(mask) if i != nodata)
    # rasterio returns a band's polygons in the coordinates of its georeference
    to_pixels = None if isinstance(mask, np.ndarray) else ~mask.ds.transform
    separator, left_out = b'\n', 0
    while batch := [*itertools.islice(shapes, BATCH)]:
        polygons = np.array([shape(geometry) for geometry, _ in batch])
        if to_pixels is not None:
            polygons = shapely.transform(polygons, lambda points: np.rint(mapped(points, to_pixels)))
        for feature in _features(polygons, [index for _, index in batch], classes, ground):
            if feature is None:
                left_out += 1
                continue
            yield separator + feature.encode()
            separator = b',\n'
    if left_out and lost is not None:
        lost.append(f'{left_out} polygons are left out: they have corners without longitude and latitude')
    yield b'\n]}\n'


def _features(
    polygons: NDArray[Any], indices: Sequence[int], classes: Sequence[str], ground: Ground
) -> Iterator[str | None]:
    """Yield the JSON of each polygon (in pixels) and its class, None if a corner has no longitude."""
    placed, areas = (_on_globe if ground.units == 'degrees' else _on_plane)(polygons, ground)
    decimals = _decimals(ground)
    placed = shapely.transform(placed, lambda points: points.round(decimals) + 0.0)  # 0 in place of -0
    pixels = np.rint(shapely.area(polygons)).astype(int).tolist()
    for geometry, index, count, area in zip(shapely.to_geojson(placed), indices, pixels, areas, strict=True):
        if geometry is None:
            yield None
            continue
        properties = {'class': classes[index], 'index': index, 'pixels': count}
        if area is not None:
            properties['square_metres'] = float(digits(area))
        yield f'{{"type": "Feature", "properties": {json.dumps(properties, allow_nan=False)}, "geometry": {geometry}}}'


def _decimals(ground: Ground) -> int:
    """Return how many decimals keep a pixel's corners apart."""
    least = DECIMALS[ground.units]
    if ground.transform is None:
        return least
    side = ground.pixel / DEGREE if ground.units == 'degrees' else math.sqrt(abs(ground.transform.determinant))
    return min(max(least, 4 - math.floor(math.log10(side))), 15) if side else least


def _on_plane(polygons: NDArray[Any], ground: Ground) -> tuple[NDArray[Any], Sequence[float | None]]:
    """Convert polygons to the ground's units; their areas are known if the CRS has an ellipsoid."""
    placed: NDArray[Any] = shapely.orient_polygons(shapely.transform(polygons, ground.coordinates))
    if ground.ellipsoid is None:
        return placed, [None] * len(polygons)
    points, ring_of, polygon_of = _rings(polygons, ground)
    return placed, _areas(*_paths(ground.own(points), ring_of, ground), polygon_of, ground.ellipsoid)


def _on_globe(polygons: NDArray[Any], ground: Ground) -> tuple[NDArray[Any], Sequence[float]]:
    """Convert polygons to longitude and latitude (None if a corner has none), and compute their areas."""
    assert ground.ellipsoid is not None
    points, ring_of, polygon_of = _rings(polygons, ground)
    points, placed, ring_of = _divided(points, ring_of, ground, ground.ellipsoid.a)
    own = placed if ground.is_wgs84 else ground.own(points)
    lost = polygon_of[ring_of[~np.isfinite(placed + own).all(1)]]
    placed[np.isin(polygon_of[ring_of], lost)] = 0  # shapely wants numbers
    paths = _paths(placed, ring_of, ground)
    on_ellipsoid = paths if own is placed else _paths(own, ring_of, ground)
    geometries = on_map(*paths, polygon_of)
    geometries[lost] = None
    return geometries, _areas(*on_ellipsoid, polygon_of, ground.ellipsoid)


def _rings(polygons: NDArray[Any], ground: Ground) -> tuple[Points, Numbers, Numbers]:
    """Return the points of all rings (N, 2), the inside on their left on the ground, the number of each point's ring
    (N,), and that of each ring's polygon.
    """
    turn = ground.turn(shapely.get_coordinates(shapely.get_point(shapely.get_exterior_ring(polygons), 0)))
    rings, polygon_of = shapely.get_rings(shapely.orient_polygons(polygons, exterior_cw=turn < 0), return_index=True)
    points, ring_of = shapely.get_coordinates(rings, return_index=True)
    return points, ring_of, polygon_of


def _paths(points: Points, ring_of: Numbers, ground: Ground) -> tuple[Points, Numbers]:
    return (points, ring_of) if ground.is_lonlat else unrolled(points, ring_of)


def _areas(points: Points, ring_of: Numbers, polygon_of: Numbers, ellipsoid: Ellipsoid) -> list[float]:
    """Integrate (longitude) d(height) along polygons' rings, from `_paths`, to square metres.

    A hole about a pole adds a sphere's whole area.
    """
    starts = np.searchsorted(ring_of, np.arange(len(polygon_of)))
    base = ellipsoid.height(points[starts, 1])
    heights = ellipsoid.height(points[:, 1]) - base[ring_of]
    middles = ellipsoid.height((points[1:, 1] + points[:-1, 1]) / 2) - base[ring_of[1:]]
    strips = (heights[1:] + heights[:-1] + 4 * middles) / 6 * np.diff(np.radians(points[:, 0]))
    same = ring_of[1:] == ring_of[:-1]
    ends = np.append(starts[1:], len(ring_of)) - 1
    around = 2 * math.pi * np.rint((points[ends, 0] - points[starts, 0]) / 360)
    rings = np.abs(around) - np.bincount(ring_of[1:][same], strips[same]) - base * around
    total, whole = np.bincount(polygon_of, rings), 4 * math.pi
    total -= whole * np.maximum(np.ceil(total / whole - 1e-9) - 1, 0)
    areas: list[float] = (total * ellipsoid.radius**2).tolist()
    return areas


def _divided(points: Points, ring_of: Numbers, ground: Ground, radius: float) -> tuple[Points, Points, Numbers]:
    """Halve edges of rings in pixels that are curved in longitude and latitude.

    Args:
        radius: of the planet, in metres.

    Returns:
        All points, their longitudes and latitudes, and the number of each one's ring.
    """
    placed = ground.wgs84(points)
    if ground.is_lonlat:
        return points, placed, ring_of
    fresh = np.ones(len(points), bool)  # whether the edge that starts here may have to be divided
    for _ in range(DIVIDED):
        i = np.flatnonzero(fresh[:-1] & (ring_of[1:] == ring_of[:-1]))
        length = np.hypot(*(points[i + 1] - points[i]).T)
        with np.errstate(invalid='ignore'):
            steep = np.tan(np.radians(np.abs(placed[:, 1]).clip(max=89.999)))
            bend = length**2 * ground.pixel / radius / 8 * (2 + np.maximum(steep[i], steep[i + 1]))
        i, length = (values[(bend > STRAY / 2) & (length > 1 / 8)] for values in (i, length))
        if not len(i):
            break
        middle = (points[i] + points[i + 1]) / 2
        on_ground = ground.wgs84(middle)
        step = _wrapped(placed[i + 1] - placed[i])
        away = _wrapped(on_ground - placed[i] - step / 2)
        scale = np.stack([np.cos(np.radians(on_ground[:, 1])), np.ones(len(i))], 1)
        far = np.hypot(*(away * scale).T) * length > STRAY * np.hypot(*(step * scale).T)
        far |= np.isnan(on_ground).any(1)
        i, middle, on_ground = i[far], middle[far], on_ground[far]
        fresh = np.zeros(len(points), bool)
        fresh[i] = True
        points, placed = np.insert(points, i + 1, middle, 0), np.insert(placed, i + 1, on_ground, 0)
        ring_of, fresh = np.insert(ring_of, i + 1, ring_of[i]), np.insert(fresh, i + 1, True)
        lost = np.isnan(placed).any(1)  # such a polygon is left out: its other edges need no division
        fresh &= ~np.isin(ring_of, ring_of[lost])
    return points, placed, ring_of


def _wrapped(steps: Points) -> Points:
    """Bring the longitudes of differences to between -180 and 180."""
    return np.stack([steps[:, 0] - 360 * np.rint(steps[:, 0] / 360), steps[:, 1]], 1)
