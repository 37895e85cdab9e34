"""Tabulates how much of each image each class covers, and computes the areas of pixels on the ground."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmseg_volo.inference.georeference import Ground

TOLERANCE = 1e-5  # of a pixel's area
COARSE = 15e3  # metres: larger pixels are divided into squares of this side, which count as flat
PIECE = 1 << 20  # pixels whose areas are in memory
FORMULAS = ('=', '+', '-', '@', '\t', '\r', '\n')  # what formulas start with in spreadsheets
COLUMNS = ('class', 'index', 'pixels', 'share', 'square_metres')


def pixels_per_class(mask: NDArray[Any], classes: int) -> NDArray[np.int64]:
    """Count the pixels of each class (classes,); values that are no class, such as nodata, are not counted."""
    return np.bincount(mask.ravel(), minlength=classes)[:classes]


def table(entries: Iterable[Mapping[str, Any]], classes: Sequence[str], first: str = 'file') -> bytes:
    """Write a CSV table with a line per file (or frame) and class.

    Names that a spreadsheet would take for formulas get a `'` before them.

    Args:
        entries: with the keys `first`, `pixels` and, if the ground is known, `square_metres`, both of each class.
        first: name of the first column.
    """
    text = io.StringIO()
    lines = csv.writer(text, lineterminator='\n')
    lines.writerow([first, *COLUMNS])
    for entry in entries:
        total, metres = sum(entry['pixels']), entry.get('square_metres')
        if not isinstance(metres, list):
            metres = [None] * len(classes)
        for i, (name, pixels, area) in enumerate(zip(classes, entry['pixels'], metres, strict=True)):
            square_metres = '' if area is None else digits(area)
            lines.writerow(
                [_cell(entry[first]), _cell(name), i, pixels, f'{pixels / max(total, 1):.6f}', square_metres]
            )
    return text.getvalue().encode(errors='surrogateescape')  # file names may contain any bytes


def _cell(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULAS) else value


def digits(area: float) -> str:
    """Format an area with three decimals, or with six digits if it is less than a thousand square metres."""
    return f'{area:.{max(3, 5 - math.floor(math.log10(area))) if area > 0 else 3}f}'


class PixelAreas:
    """Computes the square metres of a raster's pixels on the ellipsoid, in little memory.

    For a geographic CRS each row is exact. For others pixels are quadrilaterals on the sphere with the same areas; only
    some are computed, and parabolas interpolate between them where this is exact to TOLERANCE.

    Args:
        ground: of the raster; its `ellipsoid` must not be None.
        height: rows.
        width: columns.
    """

    def __init__(self, ground: Ground, height: int, width: int):
        assert ground.ellipsoid is not None and ground.transform is not None and ground.crs is not None
        self.ground, self.height, self.width, self.ellipsoid = ground, height, width, ground.ellipsoid
        self.by_row = ground.is_lonlat and ground.transform.b == ground.transform.d == 0
        self.column = abs(ground.transform.a) * ground.crs.units_factor[1]  # radians, if by_row
        self.missing = 0  # pixels of a class that lie off the ground
        if not self.by_row:
            self.cell, self.columns = self._choose()

    def sums(self, mask: NDArray[Any], top: int, classes: int) -> NDArray[np.float64]:
        """Sum the square metres of each class (classes,) in the rows (n, W) of a mask that start at `top`."""
        total = np.zeros(classes)
        step = max(PIECE // self.width, 1)
        if not self.by_row:
            step = -(-step // self.cell) * self.cell
        start = top - (0 if self.by_row else top % self.cell)
        for first in range(start, top + len(mask), step):
            low, high = max(first, top), min(first + step, top + len(mask))
            rows, areas = mask[low - top : high - top], self.of(low, high)
            off = np.isnan(areas)
            if off.any():
                self.missing += int((off & (rows < classes)).sum())
                areas = np.where(off, 0, areas)
            total += np.bincount(rows.ravel(), areas.ravel(), classes)[:classes]
        return total

    def of(self, top: int, bottom: int) -> NDArray[np.float64]:
        """Return the square metres of the pixels of rows (bottom - top, W); NaN off the ground."""
        if self.by_row:
            rows = np.arange(top, bottom + 1.0)
            edges = np.stack([np.zeros_like(rows), rows], 1)
            heights = np.abs(np.diff(self.ellipsoid.height(self.ground.own(edges)[:, 1])))
            areas = heights * self.column * self.ellipsoid.radius**2
            return np.repeat(areas[:, None], self.width, 1)
        strips = [
            self._between(first, min(first + self.cell, self.height))[max(top - first, 0) : bottom - first]
            for first in range(top // self.cell * self.cell, bottom, self.cell)
        ]
        return np.concatenate(strips)

    def _between(self, top: int, bottom: int) -> NDArray[np.float64]:
        """Return the areas (bottom - top, W) of one row of cells."""
        if self.cell == 1:
            return self._exact(0, self.width, top, bottom)
        nodes = self._nodes(self.columns, top, bottom)
        rows = np.einsum('iy,ix->yx', _weights((np.arange(top, bottom) + 0.5 - top) / (bottom - top)), nodes)
        thirds = np.stack([rows[:, i : rows.shape[1] - 2 + i : 2] for i in range(3)], -1)  # (rows, cells, 3)
        last = self.width - (thirds.shape[1] - 1) * self.cell  # columns of the last cell
        blocks = [
            (nodes_of @ _weights((np.arange(side) + 0.5) / side)).reshape(bottom - top, -1)
            for nodes_of, side in ((thirds[:, :-1], self.cell), (thirds[:, -1:], last))
        ]
        areas = np.concatenate(blocks, 1)
        for i in np.flatnonzero(~self._well(nodes, self.columns, top, bottom)):
            first, last = (int(self.columns[2 * i + j]) for j in (0, 2))
            areas[:, first:last] = self._exact(first, last, top, bottom)
        return areas

    def _nodes(self, columns: NDArray[np.float64], top: int, bottom: int) -> NDArray[np.float64]:
        """Compute pixel areas (3, n) at the upper edge, the middle and the lower edge of a row of cells."""
        rows = np.repeat([top, (top + bottom) / 2, bottom], len(columns))
        return self._at(np.tile(columns, 3), rows).reshape(3, -1)

    def _well(
        self, nodes: NDArray[np.float64], columns: NDArray[np.float64], top: int, bottom: int
    ) -> NDArray[np.bool_]:
        """Return for which cells parabolas through the nodes (3, 2 * cells + 1) are exact, or all is off the ground."""
        parts = np.stack([nodes[:, i : len(columns) - 2 + i : 2] for i in range(3)], 1)  # (3, 3, cells)
        first, last = columns[:-2:2], columns[2::2]
        gone: NDArray[np.bool_] = np.asarray(np.isnan(parts).all((0, 1)))
        good = np.ones_like(gone)
        for x, y in ((0.25, 0.25), (0.25, 0.75)):
            guess = np.einsum('y,x,yxn->n', _weights(np.array(y)), _weights(np.array(x)), parts)
            truth = self._at(first + x * (last - first), top + y * (bottom - top))
            good &= np.abs(guess - truth) <= TOLERANCE * np.abs(parts).max((0, 1))
            gone &= np.isnan(truth)
        well_known: NDArray[np.bool_] = good | gone
        return well_known

    def _exact(self, left: int, right: int, top: int, bottom: int) -> NDArray[np.float64]:
        """Compute the areas of these pixels, each divided into squares of less than COARSE."""
        n = max(1, min(math.ceil(self.ground.pixel / COARSE), 32))
        columns, rows = (np.arange(n * a, n * b + 1) / n for a, b in ((left, right), (top, bottom)))
        points = np.stack(np.meshgrid(columns, rows), -1)
        placed = self.ground.own(points.reshape(-1, 2), runs=points.shape[1])
        corners = self.ellipsoid.vectors(*placed.T).reshape(*points.shape[:2], 3)
        areas = _quadrilaterals(corners[:-1, :-1], corners[:-1, 1:], corners[1:, 1:], corners[1:, :-1])
        pixels: NDArray[np.float64] = areas.reshape(bottom - top, n, right - left, n).sum((1, 3))
        return pixels * self.ellipsoid.radius**2

    def _at(self, columns: NDArray[np.float64], rows: float | NDArray[np.float64]) -> NDArray[np.float64]:
        """Compute the area of a pixel around each point (N,), from a square metre's if the pixels are smaller."""
        step = max(0.5, 0.5 / self.ground.pixel)
        centres = np.stack(np.broadcast_arrays(columns, rows), 1).astype(float)
        around = step * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])[:, None]
        placed = self.ground.own((centres + around).reshape(-1, 2))
        corners = self.ellipsoid.vectors(*placed.T).reshape(4, -1, 3)
        return _quadrilaterals(*corners) * (self.ellipsoid.radius / (2 * step)) ** 2

    def _choose(self) -> tuple[int, NDArray[np.float64]]:
        """Return the largest side in pixels of cells most of which can be interpolated, and their edges and middles."""
        for side in (128, 64, 32, 16, 8, 4) if self.ground.pixel <= COARSE else ():
            edges = np.minimum(np.arange(0, self.width + side, side), self.width)
            columns = np.interp(np.arange(2 * len(edges) - 1) / 2, np.arange(len(edges)), edges)
            well: list[np.bool_] = []
            for top in np.unique(np.linspace(0, max(self.height - side, 0), 6).astype(int)):
                bottom = min(top + side, self.height)
                well.extend(self._well(self._nodes(columns, top, bottom), columns, top, bottom))
            if np.mean(well) >= 0.8:
                return side, columns
        return 1, np.empty(0)


def _weights(share: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weight (3, ...) the values at 0, 1/2 and 1 of a parabola, to interpolate at these shares of the way."""
    return np.stack([(2 * share - 1) * (share - 1), 4 * share * (1 - share), share * (2 * share - 1)])


def _quadrilaterals(
    a: NDArray[np.float64], b: NDArray[np.float64], c: NDArray[np.float64], d: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Compute the areas on the unit sphere (...) of small quadrilaterals from their corners (..., 3) in order."""
    up = a + b + c + d
    up = up / np.linalg.norm(up, axis=-1, keepdims=True)
    areas: NDArray[np.float64] = np.abs((np.cross(c - a, d - b) * up).sum(-1)) / 2
    return areas
