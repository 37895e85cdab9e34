"""Rings on the globe as GeoJSON wants them (RFC 7946, sections 3.1.6 and 3.1.9): cut at the antimeridian, closed over
the poles. Rings are (N, 2), longitude and latitude in degrees, the last point on the first one, with the inside at
their left, so that outer rings are counterclockwise and holes clockwise.
"""

from __future__ import annotations

import cmath
import itertools
from collections.abc import Iterator, Sequence

import numpy as np

Point = tuple[float, float]
NEAR = 1e-9  # degrees, a tenth of a millimetre
CORNERS = ((180.0, (180.0, 90.0)), (540.0, (-180.0, 90.0)), (720.0, (-180.0, -90.0)), (1080.0, (180.0, -90.0)))
AROUND = 1080.0  # degrees along the edge of the map


def unrolled(ring: np.ndarray, as_they_are: bool = False) -> np.ndarray:
    """A ring whose longitudes go on beyond 180 where it crosses the antimeridian, so that about a pole it ends 360
    degrees from where it began. A corner on a pole becomes two, which have the longitudes of their neighbours.

    Args:
        as_they_are: the longitudes go on already.
    """
    if as_they_are:
        return ring
    if (np.abs(ring[:, 1]) > 90 - NEAR).any():
        return _over_poles(ring)
    steps = np.diff(ring[:, 0])
    steps -= 360 * np.rint(steps / 360)
    return np.stack([ring[0, 0] + np.concatenate([[0], np.cumsum(steps)]), ring[:, 1]], 1)


def _over_poles(ring: np.ndarray) -> np.ndarray:
    points = [tuple(point) for i, point in enumerate(ring[:-1]) if not (ring[i] == ring[i - 1]).all() or i == 0]
    first = next(i for i, point in enumerate(points) if abs(point[1]) <= 90 - NEAR)
    points = points[first:] + points[: first + 1]
    found = [points[0]]
    pole = 0.0
    for longitude, latitude in points[1:]:
        if abs(latitude) > 90 - NEAR:
            pole = 90.0 if latitude > 0 else -90.0
            continue
        before = found[-1][0]
        if pole:  # the inside is at the left: westwards at the north pole, eastwards at the south pole
            turn = (before - longitude) % 360 if pole > 0 else -((longitude - before) % 360)
            found.extend([(before, pole), (before - turn, pole)])
            before, pole = before - turn, 0.0
        step = longitude - before
        found.append((before + step - 360 * round(step / 360), latitude))
    return np.array(found)


def fits(rings: Sequence[np.ndarray]) -> list[list[np.ndarray]] | None:
    """The polygon of these rings, from `unrolled`, if it lies between -180 and 180 degrees and about no pole."""
    found = []
    for ring in rings:
        low, high = ring[:, 0].min(), ring[:, 0].max()
        shift = 360 * np.floor((low + high) / 720 + 0.5)
        if abs(ring[-1, 0] - ring[0, 0]) > 180 or low - shift < -180 - NEAR or high - shift > 180 + NEAR:
            return None
        placed = np.stack([(ring[:, 0] - shift).clip(-180, 180), ring[:, 1]], 1)
        placed[-1] = placed[0]
        found.append(placed)
    return [found]


def cut(rings: Sequence[np.ndarray]) -> list[list[np.ndarray]]:
    """Polygons between -180 and 180 degrees that together are the one of these rings, from `unrolled`.

    Each ring falls into chains from one crossing of the antimeridian to the next. Where a chain leaves the map, the
    outline goes on along the map's edge, counterclockwise, to where the next one comes in.
    """
    whole, chains = [], []
    for ring in rings:
        parts, closed = _chains(ring)
        (whole if closed else chains).extend(parts)
    starts = [_edge_place(chain[0]) for chain in chains]
    waiting = set(range(len(chains)))
    while waiting:
        first = current = min(waiting)
        outline = []
        while True:
            waiting.discard(current)
            outline.extend(chains[current])
            leaving = _edge_place(chains[current][-1])
            ways = {i: (starts[i] - leaving) % AROUND for i in waiting | {first}}
            current = min(ways, key=lambda i: ways[i])
            for turn in (0.0, AROUND):
                passed = (point for place, point in CORNERS if leaving < place + turn < leaving + ways[current])
                outline.extend(passed)
            if current == first:
                break
        whole.append(np.array([*outline, outline[0]]))
    return _nested([part for ring in _joined(whole) for part in _simple(ring)])


def _joined(rings: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Rings about the same inside, without edges that have it at both sides, as where a raster's first and last column
    meet, and as few as may be where they touch: each goes around one part whose inside is in one piece.
    """
    onward: dict[Point, list[Point]] = {}
    for a, b in _edges(rings):
        if a in onward.get(b, ()):
            onward[b].remove(a)
        else:
            onward.setdefault(a, []).append(b)
    found = []
    for start in onward:
        while onward[start]:
            path = [start, onward[start].pop()]
            while path[-1] != start:
                ways = onward[path[-1]]
                back = cmath.phase(complex(*path[-2]) - complex(*path[-1]))
                turns = [(back - cmath.phase(complex(*way) - complex(*path[-1]))) % (2 * cmath.pi) for way in ways]
                path.append(ways.pop(turns.index(min(turns))))
            found.append(np.array(path))
    return found


def _edges(rings: Sequence[np.ndarray]) -> Iterator[tuple[Point, Point]]:
    """Those along a meridian are divided at all the points on it, so that the same ones can be found."""
    points = [[(x, y) for x, y in ring.round(11).tolist()] for ring in rings]
    meridians: dict[float, set[float]] = {}
    for x, y in itertools.chain(*points):
        meridians.setdefault(x, set()).add(y)
    for ring in points:
        for a, b in itertools.pairwise(ring):
            if a[0] == b[0] and len(meridians[a[0]]) > 2:
                between = sorted(
                    (y for y in meridians[a[0]] if min(a[1], b[1]) < y < max(a[1], b[1])), reverse=a[1] > b[1]
                )
                yield from itertools.pairwise([a, *((a[0], y) for y in between), b])
            elif a != b:
                yield a, b


def _simple(ring: np.ndarray) -> list[np.ndarray]:
    """A ring, or several in place of one that touches itself."""
    found, path, places = [], [], {}
    for point in ring:
        key = tuple(point)
        if key in places:
            first = places[key]
            loop, path = [*path[first:], path[first]], path[:first]
            if len(loop) > 3:
                found.append(np.array(loop))
            places = {tuple(p): i for i, p in enumerate(path)}
        places[key] = len(path)
        path.append(point)
    return found


def _chains(ring: np.ndarray) -> tuple[list[np.ndarray], bool]:
    """Of a ring the parts in the same turn of the globe, between -180 and 180; and whether it is in one of them."""
    ring = ring.copy()
    line = 360 * np.rint((ring[:, 0] - 180) / 360) + 180  # the nearest one
    near = np.abs(ring[:, 0] - line) < NEAR
    ring[near, 0] = line[near]
    points = [ring[0]]
    for a, b in zip(ring[:-1], ring[1:], strict=True):
        if (a == b).all():
            continue
        low, high = sorted((a[0], b[0]))
        lines = 180 + 360 * np.arange(np.floor((low - 180) / 360) + 1, np.ceil((high - 180) / 360))
        for x in lines if b[0] > a[0] else lines[::-1]:
            points.append(np.array([x, a[1] + (b[1] - a[1]) * (x - a[0]) / (b[0] - a[0])]))
        points.append(b)
    points = np.array(points)
    middle, up = (points[1:, 0] + points[:-1, 0]) / 2, np.diff(points[:, 1]) > 0
    turns = np.floor((middle + 180) / 360)
    along = (np.diff(points[:, 0]) == 0) & ((middle + 180) % 360 == 0)
    turns[along & up] -= 1  # the inside is at the left, west of an edge that goes up
    around = round((points[-1, 0] - points[0, 0]) / 360)
    ends = np.flatnonzero(np.diff(turns, append=turns[0] + around)) + 1
    edges = [np.stack([points[i : i + 2, 0] - 360 * turns[i], points[i : i + 2, 1]], 1) for i in range(len(turns))]
    if not len(ends):
        return [np.array([edge[0] for edge in edges] + [edges[0][0]])], True
    edges = edges[ends[-1] :] + edges[: ends[-1]]
    bounds = [0, *(ends + len(turns) - ends[-1])[:-1], len(turns)]
    parts = [edges[a:b] for a, b in zip(bounds[:-1], bounds[1:], strict=True)]
    return [np.array([part[0][0], *(edge[1] for edge in part)]) for part in parts], False


def _edge_place(point: np.ndarray) -> float:
    """How far a point lies along the map's edge: up the right side from 0, then left, down and right."""
    return round(float(point[1] + 90 if point[0] > 0 else 540 + 90 - point[1]), 11)


def _nested(rings: Sequence[np.ndarray]) -> list[list[np.ndarray]]:
    """Holes in the smallest outline that they lie in."""
    areas = [signed_area(ring) for ring in rings]
    outlines = sorted((a, i) for i, a in enumerate(areas) if a > 0)
    polygons = {i: [rings[i]] for _, i in outlines}
    if not polygons:  # all but holes
        polygons, outlines = {-1: [np.array([point for _, point in (*CORNERS, CORNERS[0])])]}, [(0.0, -1)]
    for hole, area in zip(rings, areas, strict=True):
        if area < 0:
            around = next(
                (i for _, i in outlines if len(outlines) == 1 or _holds(polygons[i][0], hole)), outlines[-1][1]
            )
            polygons[around].append(hole)
    return [*polygons.values()]


def _holds(outline: np.ndarray, ring: np.ndarray) -> bool:
    """Whether most middles of a ring's edges lie inside."""
    (x, y), (x0, y0), (x1, y1) = ((ring[1:] + ring[:-1]) / 2).T, outline[:-1].T, outline[1:].T
    over = (y0 > y[:, None]) != (y1 > y[:, None])
    with np.errstate(divide='ignore', invalid='ignore'):
        right = x[:, None] < x0 + (y[:, None] - y0) * (x1 - x0) / (y1 - y0)
    return float(((over & right).sum(1) % 2).mean()) > 0.5


def signed_area(ring: np.ndarray) -> float:
    """Of a closed ring (N, 2), positive if it is counterclockwise where y goes up."""
    x, y = (ring - ring[0]).T
    return float((x[:-1] * y[1:] - x[1:] * y[:-1]).sum() / 2)
