"""Masks as polygons, in GeoJSON (RFC 7946)."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmseg_volo.errors import UsageError
from mmseg_volo.inference.areas import digits
from mmseg_volo.inference.georeference import Ground, is_usable, mapped

Points = NDArray[np.float64]  # (N, 2)
Indices = NDArray[np.int64]

DECIMALS = {'degrees': 9, 'pixels': 0, 'crs units': 4}  # a tenth of a millimetre; more where pixels are small
DEGREE = 111e3  # metres
BATCH = 2000  # polygons whose coordinates are transformed at once
STRAY = 0.003  # pixels that an edge's middle may lie beside the ground's
DIVIDED = 24  # times at most that an edge is halved


def need_rasterio(what: str) -> None:
    """Raises:
    UsageError: rasterio is not installed.
    """
    try:
        import rasterio.features  # noqa: F401
    except ImportError as error:
        raise UsageError(f'{what}: this needs rasterio, pip install rasterio') from error


def geojson(
    mask: Any, classes: Sequence[str], ground: Ground, nodata: int | None = None, lost: list[str] | None = None
) -> Iterator[bytes]:
    """A FeatureCollection with a feature for each connected area (by edges) of one class.

    A feature's properties are `class`, `index`, `pixels` and, where there is a ground, `square_metres` on the CRS's
    ellipsoid. The foreign member `units` says what the coordinates are: degrees (longitude, latitude), pixels (column,
    row, of corners, the image's upper left one is 0, 0), or those of a georeference without CRS, or with one of another
    planet. In degrees long edges have as many points as they need to stay within STRAY pixels of the ground's, and
    polygons are cut at the antimeridian and closed over a pole. Those with a corner that has no longitude are left out.

    Args:
        mask: class indices (H, W), or a band of an open raster, `rasterio.band(raster, 1)`.
        nodata: an index to be left out.
        lost: gets a sentence, with the last piece, if polygons were left out.

    Yields:
        The file's content, piece by piece.
    """
    import rasterio.features
    import shapely

    yield f'{{"type": "FeatureCollection", "units": "{ground.units}", "features": ['.encode()
    if not isinstance(mask, np.ndarray) and not is_usable(mask.ds.transform):
        mask = mask.ds.read(1)
    shapes = ((shape['coordinates'], int(i)) for shape, i in rasterio.features.shapes(mask) if i != nodata)
    # a strip's polygons come in the coordinates of its georeference
    back = None if isinstance(mask, np.ndarray) else ~mask.ds.transform
    first, left_out = True, 0
    while batch := [*itertools.islice(shapes, BATCH)]:
        polygons = _polygons([rings for rings, _ in batch])
        if back is not None:
            polygons = shapely.transform(polygons, lambda points: np.rint(mapped(points, back)))
        for feature in _features(polygons, [index for _, index in batch], classes, ground):
            if feature is None:
                left_out += 1
                continue
            yield (b'\n' if first else b',\n') + feature.encode()
            first = False
    if left_out and lost is not None:
        lost.append(f'{left_out} polygons are left out: they have corners without longitude and latitude')
    yield b'\n]}\n'


def _polygons(batch: Sequence[Sequence[Sequence[tuple[float, float]]]]) -> NDArray[Any]:
    """shapely's polygons from their rings' points."""
    import shapely

    rings = [*itertools.chain.from_iterable(batch)]
    points = np.array([*itertools.chain.from_iterable(rings)])
    ring = np.repeat(np.arange(len(rings)), [len(r) for r in rings])
    polygon = np.repeat(np.arange(len(batch)), [len(p) for p in batch])
    return shapely.polygons(shapely.linearrings(points, indices=ring), indices=polygon)


def _features(
    polygons: NDArray[Any], indices: Sequence[int], classes: Sequence[str], ground: Ground
) -> Iterator[str | None]:
    """Of polygons in pixels and their classes, None of one that has no place."""
    import shapely

    pixels = np.rint(shapely.area(polygons)).astype(int)
    placed, areas = (_on_globe if ground.units == 'degrees' else _on_plane)(polygons, ground)
    decimals = _decimals(ground)
    placed = shapely.transform(placed, lambda points: points.round(decimals) + 0.0)  # 0 in place of -0
    geometries = shapely.to_geojson(placed)
    for geometry, index, count, square_metres in zip(geometries, indices, pixels.tolist(), areas, strict=True):
        if geometry is None:
            yield None
            continue
        properties = {'class': classes[index], 'index': index, 'pixels': count}
        if square_metres is not None:
            properties['square_metres'] = float(digits(square_metres))
        yield f'{{"type": "Feature", "properties": {json.dumps(properties, allow_nan=False)}, "geometry": {geometry}}}'


def _decimals(ground: Ground) -> int:
    """So many that a pixel's corners stay apart."""
    least = DECIMALS[ground.units]
    if ground.units == 'pixels':
        return least
    side = ground.pixel / DEGREE if ground.units == 'degrees' else math.sqrt(abs(ground.transform.determinant))
    return min(max(least, 4 - math.floor(math.log10(side))), 15) if side else least


def _on_plane(polygons: NDArray[Any], ground: Ground) -> tuple[NDArray[Any], Sequence[float | None]]:
    """Polygons in pixels or the units of a CRS, and their areas if it has an ellipsoid."""
    import shapely

    placed = shapely.orient_polygons(shapely.transform(polygons, ground.coordinates))
    if not ground.ellipsoid:
        return placed, [None] * len(polygons)
    points, ring, polygon = _rings(polygons, ground)
    return placed, _areas(ground.own(points), ring, polygon, ground)


def _on_globe(polygons: NDArray[Any], ground: Ground) -> tuple[NDArray[Any], Sequence[float | None]]:
    """Polygons in longitude and latitude, None in place of those that have a corner without, and their areas."""
    from mmseg_volo.inference.antimeridian import on_map, unrolled

    points, ring, polygon = _rings(polygons, ground)
    points, placed, ring = _divided(points, ring, ground)
    own = placed if ground.is_wgs84 else ground.own(points)
    lost = polygon[ring[~np.isfinite(placed + own).all(1)]]
    placed[np.isin(polygon[ring], lost)] = 0
    areas = _areas(own, ring, polygon, ground)
    if not ground.is_lonlat:
        placed, ring = unrolled(placed, ring)
    mapped_polygons = on_map(placed, ring, polygon)
    mapped_polygons[lost] = None
    return mapped_polygons, areas


def _rings(polygons: NDArray[Any], ground: Ground) -> tuple[Points, Indices, Indices]:
    """The points of polygons' rings with the inside on their left on the ground, the ring of each point, and the
    polygon of each ring.
    """
    import shapely

    turn = ground.turn(shapely.get_coordinates(shapely.get_point(shapely.get_exterior_ring(polygons), 0)))
    rings, polygon = shapely.get_rings(shapely.orient_polygons(polygons, exterior_cw=turn < 0), return_index=True)
    points, ring = shapely.get_coordinates(rings, return_index=True)
    return points, ring, polygon


def _areas(points: Points, ring: Indices, polygon: Indices, ground: Ground) -> list[float]:
    """Square metres inside polygons, from their rings on the CRS's ellipsoid, the inside on their left: the integral of
    (longitude) d(height), with a sphere's whole area more for a hole about a pole.
    """
    from mmseg_volo.inference.antimeridian import unrolled

    if not ground.is_lonlat:
        points, ring = unrolled(points, ring)
    height = ground.ellipsoid.height
    starts = np.searchsorted(ring, np.arange(len(polygon)))
    base = height(points[starts, 1])
    same = ring[1:] == ring[:-1]
    longitudes, heights = np.radians(points[:, 0]), height(points[:, 1]) - base[ring]
    middles = height((points[1:, 1] + points[:-1, 1]) / 2) - base[ring[1:]]
    strips = (heights[1:] + heights[:-1] + 4 * middles) / 6 * np.diff(longitudes)
    around = (
        2 * math.pi * np.rint((longitudes[np.append(starts[1:], len(ring)) - 1] - longitudes[starts]) / 2 / math.pi)
    )
    rings = np.abs(around) - np.bincount(ring[1:][same], strips[same]) - base * around
    total, whole = np.bincount(polygon, rings), 4 * math.pi
    total -= whole * np.maximum(np.ceil(total / whole - 1e-9) - 1, 0)
    return (total * ground.ellipsoid.radius**2).tolist()


def _divided(points: Points, ring: Indices, ground: Ground) -> tuple[Points, Points, Indices]:
    """Points in pixels, with more of them where straight edges are curved in longitude and latitude, these, and the
    ring of each.
    """
    placed = ground.wgs84(points)
    if ground.is_lonlat:
        return points, placed, ring
    fresh = np.ones(len(points), bool)  # whether the edge from here on may have to be divided
    for _ in range(DIVIDED):
        i = np.flatnonzero(fresh[:-1] & (ring[1:] == ring[:-1]))
        length = np.hypot(*(points[i + 1] - points[i]).T)
        with np.errstate(invalid='ignore'):
            steep = np.tan(np.radians(np.abs(placed[:, 1]).clip(max=89.999)))
            bend = length**2 * ground.pixel / ground.ellipsoid.a / 8 * (2 + np.maximum(steep[i], steep[i + 1]))
        i, length = (values[(bend > STRAY / 2) & (length > 1 / 8)] for values in (i, length))
        if not len(i):
            break
        middle = (points[i] + points[i + 1]) / 2
        found = ground.wgs84(middle)
        step = _wrapped(placed[i + 1] - placed[i])
        away = _wrapped(found - placed[i] - step / 2)
        scale = np.stack([np.cos(np.radians(found[:, 1])), np.ones(len(i))], 1)
        far = np.hypot(*(away * scale).T) * length > STRAY * np.hypot(*(step * scale).T)
        far |= np.isnan(found).any(1)
        i, middle, found = i[far], middle[far], found[far]
        fresh = np.zeros(len(points), bool)
        fresh[i] = True
        points, placed = np.insert(points, i + 1, middle, 0), np.insert(placed, i + 1, found, 0)
        ring, fresh = np.insert(ring, i + 1, ring[i]), np.insert(fresh, i + 1, True)
        gone = np.isnan(placed).any(1)  # such a polygon is left out: its other edges need no look
        fresh &= ~np.isin(ring, ring[gone])
    return points, placed, ring


def _wrapped(steps: np.ndarray) -> np.ndarray:
    """(N, 2) with the longitudes between -180 and 180."""
    return steps - np.stack([360 * np.rint(steps[:, 0] / 360), np.zeros(len(steps))], 1)
