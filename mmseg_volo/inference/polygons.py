"""Masks as polygons, in GeoJSON (RFC 7946)."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from mmseg_volo.errors import UsageError
from mmseg_volo.inference.antimeridian import cut, fits, signed_area, unrolled
from mmseg_volo.inference.areas import digits
from mmseg_volo.inference.georeference import Ground, is_usable, mapped

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

    yield f'{{"type": "FeatureCollection", "units": "{ground.units}", "features": ['.encode()
    if not isinstance(mask, np.ndarray) and not is_usable(mask.ds.transform):
        mask = mask.ds.read(1)
    shapes = ((shape['coordinates'], int(i)) for shape, i in rasterio.features.shapes(mask) if i != nodata)
    # a band's polygons come in the coordinates of its georeference
    back = None if isinstance(mask, np.ndarray) else ~mask.ds.transform
    first, left_out = True, 0
    while batch := [*itertools.islice(shapes, BATCH)]:
        rings = [np.array(ring) for polygon, _ in batch for ring in polygon]
        if back is not None:
            rings = [np.rint(mapped(ring, back)) for ring in rings]
        for feature in _features(batch, rings, classes, ground):
            if feature is None:
                left_out += 1
                continue
            yield (b'\n' if first else b',\n') + json.dumps(feature, allow_nan=False).encode()
            first = False
    if left_out and lost is not None:
        lost.append(f'{left_out} polygons are left out: they have corners without longitude and latitude')
    yield b'\n]}\n'


def _features(
    batch: Sequence[tuple[Sequence, int]], rings: Sequence[np.ndarray], classes: Sequence[str], ground: Ground
) -> Iterator[dict[str, Any] | None]:
    """Of polygons and their classes, None of one that has no place; `rings` are those of all, in pixels."""
    sizes = [signed_area(ring) for ring in rings]
    decimals = _decimals(ground)
    # polygons of degrees have their inside at the left, so the first ring is counterclockwise and others are clockwise
    onto = _onto_globe if ground.units == 'degrees' else _onto_plane
    placed = onto(rings, [len(polygon) for polygon, _ in batch], sizes, ground)
    sizes = iter(sizes)
    for (polygon, index), found in zip(batch, placed, strict=True):
        parts = [abs(next(sizes)) for _ in polygon]
        if found is None:
            yield None
            continue
        pixels = round(parts[0] - sum(parts[1:]))  # the first is the outer one, the others are holes
        properties = {'class': classes[index], 'index': index, 'pixels': pixels}
        polygons, square_metres = found
        if square_metres is not None:
            properties['square_metres'] = float(digits(square_metres))
        polygons = [[_rounded(ring, decimals) for ring in rings] for rings in polygons]
        one = len(polygons) == 1
        geometry = dict(type='Polygon' if one else 'MultiPolygon', coordinates=polygons[0] if one else polygons)
        yield dict(type='Feature', properties=properties, geometry=geometry)


def _decimals(ground: Ground) -> int:
    """So many that a pixel's corners stay apart."""
    least = DECIMALS[ground.units]
    if ground.units == 'pixels':
        return least
    side = ground.pixel / DEGREE if ground.units == 'degrees' else math.sqrt(abs(ground.transform.determinant))
    return min(max(least, 4 - math.floor(math.log10(side))), 15) if side else least


def _rounded(ring: np.ndarray, decimals: int) -> list[list[float]]:
    return (ring.round(decimals) + 0.0).tolist()  # 0 in place of -0


def _onto_plane(
    rings: Sequence[np.ndarray], counts: Sequence[int], sizes: Sequence[float], ground: Ground
) -> Iterator[tuple[list[list[np.ndarray]], float | None]]:
    """Polygons in pixels or the units of a CRS, which may have an ellipsoid."""
    rings, sphere = iter(rings), ground.ellipsoid
    for count in counts:
        polygon, area = [], None
        parts = [next(rings) for _ in range(count)]
        for i, ring in enumerate(parts):
            place = ground.coordinates(ring)
            polygon.append(place if (signed_area(place) > 0) == (i == 0) else place[::-1])
        if sphere:
            turn = ground.turn(parts[0])
            inside = [_inside_left(ring, i, turn) for i, ring in enumerate(parts)]
            area = _ground_area([unrolled(ground.own(ring), ground.is_lonlat) for ring in inside], ground)
        yield [polygon], area


def _inside_left(ring: np.ndarray, number: int, turn: int) -> np.ndarray:
    """The ring of a polygon, the outer one counterclockwise on the ground, holes clockwise."""
    return ring if (signed_area(ring) * turn > 0) == (number == 0) else ring[::-1]


def _onto_globe(
    rings: Sequence[np.ndarray], counts: Sequence[int], sizes: Sequence[float], ground: Ground
) -> Iterator[tuple[list[list[np.ndarray]], float] | None]:
    """Polygons in longitude and latitude, None of those that have a corner without."""
    turn = ground.turn(np.concatenate([ring[:1] for ring in rings]))
    numbers = [i for count in counts for i in range(count)]
    points = [_inside_left(ring, i, turn) for ring, i in zip(rings, numbers, strict=True)]
    points, placed = _divided(points, ground)
    own = placed if ground.is_wgs84 else _split(ground.own(np.concatenate(points)), points)
    first = 0
    for count in counts:
        part = slice(first, first + count)
        first += count
        if not all(np.isfinite(ring).all() for ring in placed[part] + own[part]):
            yield None
            continue
        paths = [unrolled(ring, ground.is_lonlat) for ring in placed[part]]
        on_ellipsoid = paths if own is placed else [unrolled(ring, ground.is_lonlat) for ring in own[part]]
        yield fits(paths) or cut(paths), _ground_area(on_ellipsoid, ground)


def _ground_area(paths: Sequence[np.ndarray], ground: Ground) -> float:
    """Square metres inside a polygon's rings, from `unrolled`, the inside at their left: the integral of
    (longitude) d(height), with a sphere's whole area more for a hole about a pole.
    """
    total = 0.0
    for path in paths:
        middles = (path[1:, 1] + path[:-1, 1]) / 2
        heights = ground.ellipsoid.height(np.concatenate([path[:, 1], middles]))
        heights, middles = np.split(heights, [len(path)])
        base = heights[0]
        mean = (heights[1:] - base + heights[:-1] - base + 4 * (middles - base)) / 6
        steps = np.diff(np.radians(path[:, 0]))
        around = 2 * math.pi * round(steps.sum() / (2 * math.pi))
        total += abs(around) - float(mean @ steps) - base * around
    whole = 4 * math.pi
    return (total - whole * max(math.ceil(total / whole - 1e-9) - 1, 0)) * ground.ellipsoid.radius**2


def _divided(rings: Sequence[np.ndarray], ground: Ground) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Rings in pixels, with points more where straight edges are curved in longitude and latitude, and these."""
    points = np.concatenate(rings)
    ring = np.repeat(np.arange(len(rings)), [len(r) for r in rings])
    placed = ground.wgs84(points)
    if ground.is_lonlat:
        return [*rings], _split(placed, rings)
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
    ends = np.cumsum(np.bincount(ring, minlength=len(rings)))[:-1]
    return np.split(points, ends), np.split(placed, ends)


def _wrapped(steps: np.ndarray) -> np.ndarray:
    """(N, 2) with the longitudes between -180 and 180."""
    return steps - np.stack([360 * np.rint(steps[:, 0] / 360), np.zeros(len(steps))], 1)


def _split(points: np.ndarray, like: Sequence[np.ndarray]) -> list[np.ndarray]:
    return np.split(points, np.cumsum([len(part) for part in like])[:-1])
