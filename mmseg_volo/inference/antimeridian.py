"""Cuts polygons at the antimeridian and closes them over the poles (RFC 7946, sections 3.1.6 and 3.1.9).

Rings are closed, with longitude and latitude in degrees and the inside on their left: outer rings are counterclockwise,
holes clockwise. Several rings are passed as all their `points` (N, 2) and `ring_of` (N,), the number of each point's
ring, ascending.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

Points = NDArray[np.float64]  # (N, 2)
Numbers = NDArray[np.intp]

NEAR = 1e-9  # degrees, a tenth of a millimetre
DECIMALS = 11  # degrees are rounded to so many, so that longitudes that differ by 360 become equal
MAP = shapely.box(-180, -90, 180, 90)


def unrolled(points: Points, ring_of: Numbers) -> tuple[Points, Numbers]:
    """Let longitudes go on beyond 180 where a ring crosses the antimeridian.

    A ring about a pole ends 360 degrees from its start. A corner on a pole becomes two, with the longitudes of their
    neighbours.

    Returns:
        The points and the numbers of their rings.
    """
    if len(polar := np.unique(ring_of[_on_pole(points)])):
        rings = np.split(points, np.flatnonzero(np.diff(ring_of)) + 1)
        for i in polar:
            rings[i] = _with_pole_edges(rings[i])
        points, ring_of = np.concatenate(rings), np.repeat(np.arange(len(rings)), [len(ring) for ring in rings])
    steps = np.diff(points[:, 0]) / 360
    pole = np.where(_on_pole(points), np.sign(points[:, 1]), 0)
    turns = np.rint(steps)
    # the inside is on the left of an edge along a pole: it goes west at the north pole, east at the south pole
    turns = np.where((pole[1:] > 0) & (pole[:-1] > 0), np.floor(steps + NEAR / 360) + 1, turns)
    turns = np.where((pole[1:] < 0) & (pole[:-1] < 0), np.ceil(steps - NEAR / 360) - 1, turns)
    total = np.concatenate([[0.0], -np.cumsum(np.nan_to_num(turns))])
    total -= total[np.searchsorted(ring_of, ring_of)]  # from each ring's start
    return np.stack([points[:, 0] + 360 * total, points[:, 1]], 1), ring_of


def _on_pole(points: Points) -> NDArray[np.bool_]:
    return np.abs(points[:, 1]) > 90 - NEAR


def _with_pole_edges(ring: Points) -> Points:
    """Replace a ring's corners on a pole by an edge along it, if it has others."""
    if _on_pole(ring).all():  # a map of the whole globe, with latitudes as rows
        return ring
    ring = np.repeat(ring[:-1], 1 + _on_pole(ring[:-1]), 0)
    polar, longitudes = _on_pole(ring), ring[:, 0]
    first, last = polar & ~np.roll(polar, 1), polar & ~np.roll(polar, -1)
    ring[:, 0] = np.where(first, np.roll(longitudes, 1), np.where(last, np.roll(longitudes, -1), longitudes))
    ring = ring[~polar | first | last]
    return np.concatenate([ring, ring[:1]])


def on_map(points: Points, ring_of: Numbers, polygon_of: Numbers) -> NDArray[Any]:
    """Build polygons between -180 and 180 degrees.

    Args:
        points: from `unrolled`.
        ring_of: from `unrolled`.
        polygon_of: number of each ring's polygon, ascending; a polygon's first ring is the outer one.

    Returns:
        An array of shapely geometries.
    """
    starts = np.flatnonzero(np.diff(ring_of, prepend=-1))
    longitudes = points[:, 0]
    low, high = (edge.reduceat(longitudes, starts) for edge in (np.minimum, np.maximum))
    shift = 360 * np.floor((low + high) / 720 + 0.5)
    around = np.abs(longitudes[np.append(starts[1:], len(points)) - 1] - longitudes[starts]) > 180
    beyond = around | (low - shift < -180 - NEAR) | (high - shift > 180 + NEAR)
    placed = np.stack([(longitudes - shift[ring_of]).clip(-180, 180), points[:, 1]], 1)
    polygons: NDArray[Any] = shapely.polygons(shapely.linearrings(placed, indices=ring_of), indices=polygon_of)
    rings = np.split(points, starts[1:])
    for i in np.unique(polygon_of[beyond]):
        first, last = np.searchsorted(polygon_of, [i, i + 1])
        polygons[i] = cut(rings[first:last])
    return polygons


def cut(rings: Sequence[Points]) -> Any:
    """Cut one polygon, an outer ring and its holes from `unrolled`, to shapely's one or several within the map."""
    holes = shapely.disjoint_subset_union_all([_left_of(ring[::-1]) for ring in rings[1:]])
    return shapely.orient_polygons(_union(shapely.difference(_left_of(rings[0]), holes)))


def _left_of(ring: Points) -> Any:
    """Return what lies on the left of a ring, within the map."""
    around = round((ring[-1, 0] - ring[0, 0]) / 360)
    if around:  # an eastward ring has the north pole on its left; no edge lies between its highest corner and the pole
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
    inside = _union(pieces)
    return inside if around or shapely.is_ccw(shapely.linearrings(ring)) else shapely.difference(MAP, inside)


def _union(geometries: Any) -> Any:
    """Unite the polygons among geometries, without the lines and points at which others touch the map's edge."""
    parts = shapely.get_parts(geometries)
    return shapely.disjoint_subset_union_all(parts[shapely.get_type_id(parts) == shapely.GeometryType.POLYGON])
