"""Cut polygons at the antimeridian and close them over the poles, as GeoJSON asks (RFC 7946, sections 3.1.6 and 3.1.9).

Rings are closed and have longitude and latitude in degrees, with the inside on their left: outer rings are
counterclockwise, holes clockwise. Of several, `points` (N, 2) holds all corners and `ring` (N,) the number of each one's
ring, in order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

Points = NDArray[np.float64]  # (N, 2)
Indices = NDArray[np.int64]

NEAR = 1e-9  # degrees, a tenth of a millimetre
DECIMALS = 11  # of degrees: equal longitudes are found to be so after a shift by 360
MAP = shapely.box(-180, -90, 180, 90)


def unrolled(points: Points, ring: Indices) -> tuple[Points, Indices]:
    """Rings whose longitudes go on beyond 180 where they cross the antimeridian.

    About a pole a ring ends 360 degrees from its start. A corner on a pole becomes two, with the longitudes of their
    neighbours.
    """
    if len(polar := np.unique(ring[_on_pole(points)])):
        rings = np.split(points, np.flatnonzero(np.diff(ring)) + 1)
        for i in polar:
            rings[i] = _with_pole_edges(rings[i])
        points, ring = np.concatenate(rings), np.repeat(np.arange(len(rings)), [len(r) for r in rings])
    steps = np.diff(points[:, 0]) / 360
    turns = np.rint(steps)
    pole = np.where(_on_pole(points), np.sign(points[:, 1]), 0)
    # the inside is on the left of an edge along a pole: westwards at the north pole, eastwards at the south pole
    turns = np.where((pole[1:] > 0) & (pole[:-1] > 0), np.floor(steps + NEAR) + 1, turns)
    turns = np.where((pole[1:] < 0) & (pole[:-1] < 0), np.ceil(steps - NEAR) - 1, turns)
    total = np.concatenate([[0.0], -np.cumsum(np.nan_to_num(turns))])
    total -= total[np.searchsorted(ring, ring)]  # from each ring's start
    return np.stack([points[:, 0] + 360 * total, points[:, 1]], 1), ring


def _on_pole(points: Points) -> NDArray[np.bool_]:
    return np.abs(points[:, 1]) > 90 - NEAR


def _with_pole_edges(ring: Points) -> Points:
    """The ring with an edge along the pole in place of its corners there."""
    ring = ring[:-1]
    ring = np.repeat(ring, 1 + _on_pole(ring), 0)
    polar = _on_pole(ring)
    first, last = polar & ~np.roll(polar, 1), polar & ~np.roll(polar, -1)
    longitudes = ring[:, 0]
    ring[:, 0] = np.where(first, np.roll(longitudes, 1), np.where(last, np.roll(longitudes, -1), longitudes))
    ring = ring[~polar | first | last]
    return np.concatenate([ring, ring[:1]])


def on_map(points: Points, ring: Indices, polygon: Indices) -> NDArray[Any]:
    """Polygons between -180 and 180 degrees, from `unrolled` rings.

    Args:
        polygon: the number of each ring's polygon, in order; the first ring of a polygon is its outer one.

    Returns:
        An array of shapely geometries. Where a coordinate is NaN the polygon is not cut.
    """
    starts = np.flatnonzero(np.diff(ring, prepend=-1))
    longitudes = points[:, 0]
    low, high = (edge.reduceat(longitudes, starts) for edge in (np.minimum, np.maximum))
    shift = 360 * np.floor((low + high) / 720 + 0.5)
    around = np.abs(longitudes[np.append(starts[1:], len(points)) - 1] - longitudes[starts]) > 180
    beyond = around | (low - shift < -180 - NEAR) | (high - shift > 180 + NEAR)
    placed = np.stack([(longitudes - shift[ring]).clip(-180, 180), points[:, 1]], 1)
    polygons: NDArray[Any] = shapely.polygons(shapely.linearrings(placed, indices=ring), indices=polygon)
    rings = np.split(points, starts[1:])
    for i in np.unique(polygon[beyond]):
        first, last = np.searchsorted(polygon, [i, i + 1])
        polygons[i] = cut(rings[first:last])
    return polygons


def cut(rings: Sequence[Points]) -> Any:
    """The polygon or multipolygon between -180 and 180 degrees of these `unrolled` rings, an outer one and its holes."""
    holes = shapely.disjoint_subset_union_all([_left_of(ring[::-1]) for ring in rings[1:]])
    return shapely.orient_polygons(_polygonal(shapely.difference(_left_of(rings[0]), holes)))


def _left_of(ring: Points) -> Any:
    """What lies on the left of a ring, between -180 and 180 degrees."""
    around = round((ring[-1, 0] - ring[0, 0]) / 360)
    if around:  # eastwards the north pole is on the left; from the corner next to it nothing lies in the way
        corner = int(np.argmax(ring[:-1, 1] * around))
        ring = np.concatenate([ring[corner:-1], ring[: corner + 1] + [360 * around, 0]])
        ring = np.concatenate([ring, [[ring[-1, 0], 90 * around], [ring[0, 0], 90 * around], ring[0]]])
    pieces = []
    for turn in range(int((ring[:, 0].min() + 180) // 360), int((ring[:, 0].max() + 180) // 360) + 1):
        shifted = (ring - [360 * turn, 0]).round(DECIMALS)
        near = np.abs(np.abs(shifted[:, 0]) - 180) < NEAR
        shifted[near, 0] = np.copysign(180, shifted[near, 0])
        piece = shapely.polygons(shifted)
        if not shapely.is_valid(piece):
            piece = shapely.make_valid(piece, method='structure', keep_collapsed=False)
        pieces.append(shapely.intersection(piece, MAP))
    area = _polygonal(pieces)
    return area if around or shapely.is_ccw(shapely.linearrings(ring)) else shapely.difference(MAP, area)


def _polygonal(geometries: Any) -> Any:
    """The union of the polygons among geometries, without the lines and points in which others touch."""
    parts = shapely.get_parts(geometries)
    return shapely.disjoint_subset_union_all(parts[shapely.get_type_id(parts) == shapely.GeometryType.POLYGON])
