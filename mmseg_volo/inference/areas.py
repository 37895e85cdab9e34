"""How much of each image each class takes, as a table, and how large its pixels are on the ground."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from mmseg_volo.inference.georeference import Ground

TOLERANCE = 1e-5  # of a pixel's area
COARSE = 15e3  # metres: of larger pixels, parts of this side are taken for flat
PIECE = 1 << 20  # pixels whose areas are in memory
FORMULAS = ('=', '+', '-', '@', '\t', '\r', '\n')  # begin so, for spreadsheets
COLUMNS = ('class', 'index', 'pixels', 'share', 'square_metres')


def pixels_per_class(mask: np.ndarray, classes: int) -> np.ndarray:
    """Pixels of each class (classes,), int64; what is no class, as nodata, is not counted."""
    return np.bincount(mask.ravel(), minlength=classes)[:classes]


def table(entries: Iterable[Mapping[str, Any]], classes: Sequence[str], first: str = 'file') -> bytes:
    """A line per file, or frame, and class.

    Args:
        entries: of each what `first` says, `pixels` and, where the ground is known, `square_metres` of each class.
        first: name of the first column.

    Names that a spreadsheet would take for formulas have a `'` before them.
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
    return text.getvalue().encode(errors='surrogateescape')  # names of files may be of any bytes


def _cell(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULAS) else value


def digits(area: float) -> str:
    """With three decimals, of less than a thousand square metres with six digits."""
    return f'{area:.{max(3, 5 - math.floor(math.log10(area))) if area > 0 else 3}f}'


class PixelAreas:
    """Square metres of the pixels of a raster, on the ellipsoid, in little memory.

    Of a CRS of longitude and latitude those of each row are exact. Of others they are those of quadrilaterals on the
    sphere with the same areas: of some pixels, and by parabolas between them where this is exact to TOLERANCE.

    Args:
        ground: of the raster; its `ellipsoid` is not None.
        height: rows.
        width: columns.
    """

    def __init__(self, ground: Ground, height: int, width: int):
        self.ground, self.height, self.width = ground, height, width
        by = ground.transform
        self.by_row = ground.is_lonlat and by.b == by.d == 0
        self.missing = 0  # pixels of a class that lie off the ground
        if not self.by_row:
            self.cell, self.columns = self._choose()

    def sums(self, mask: np.ndarray, top: int, classes: int) -> np.ndarray:
        """Square metres of each class (classes,) in the rows (n, W) of a mask from `top` on; see `pixels_per_class`."""
        total = np.zeros(classes)
        step = max(PIECE // self.width, 1)
        if not self.by_row:
            step = -(-step // self.cell) * self.cell
        start = top - (0 if self.by_row else top % self.cell)
        for first in range(start, top + len(mask), step):
            low, high = max(first, top), min(first + step, top + len(mask))
            part, areas = mask[low - top : high - top], self.of(low, high)
            off = np.isnan(areas)
            if off.any():
                self.missing += int((off & (part < classes)).sum())
                areas = np.where(off, 0, areas)
            total += np.bincount(part.ravel(), areas.ravel(), classes)[:classes]
        return total

    def of(self, top: int, bottom: int) -> np.ndarray:
        """(bottom - top, W) of these rows; NaN off the ground."""
        if self.by_row:
            by, earth = self.ground.transform, self.ground.ellipsoid
            edges = np.stack([np.zeros(bottom - top + 1), np.arange(top, bottom + 1)], 1)
            heights = np.abs(np.diff(earth.height(self.ground.own(edges)[:, 1])))
            rows = heights * abs(by.a) * self.ground.crs.units_factor[1] * earth.radius**2
            return np.repeat(rows[:, None], self.width, 1)
        found = [
            self._between(first, min(first + self.cell, self.height))[max(top - first, 0) : bottom - first]
            for first in range(top // self.cell * self.cell, bottom, self.cell)
        ]
        return np.concatenate(found)

    def _between(self, top: int, bottom: int) -> np.ndarray:
        """Of the rows of one row of cells."""
        if self.cell == 1:
            return self._exact(0, self.width, top, bottom)
        nodes = self._nodes(self.columns, top, bottom)
        rows = np.einsum('iy,ix->yx', _weights((np.arange(top, bottom) + 0.5 - top) / (bottom - top)), nodes)
        thirds = np.stack([rows[:, i : rows.shape[1] - 2 + i : 2] for i in range(3)], -1)  # (rows, cells, 3)
        last = self.width - (thirds.shape[1] - 1) * self.cell  # columns of the last cell
        areas = [
            (part @ _weights((np.arange(side) + 0.5) / side)).reshape(bottom - top, -1)
            for part, side in ((thirds[:, :-1], self.cell), (thirds[:, -1:], last))
        ]
        areas = np.concatenate(areas, 1)
        for i in np.flatnonzero(~self._well(nodes, self.columns, top, bottom)):
            first, last = (int(self.columns[2 * i + j]) for j in (0, 2))
            areas[:, first:last] = self._exact(first, last, top, bottom)
        return areas

    def _nodes(self, columns: np.ndarray, top: int, bottom: int) -> np.ndarray:
        """(3, n) at the upper edge, the middle and the lower edge of a row of cells."""
        rows = np.repeat([top, (top + bottom) / 2, bottom], len(columns))
        return self._at(np.tile(columns, 3), rows).reshape(3, -1)

    def _well(
        self, nodes: np.ndarray, columns: np.ndarray, top: np.ndarray | int, bottom: np.ndarray | int
    ) -> np.ndarray:
        """Of which cells the areas between the nodes (3, 2 * cells + 1) are exact, or there is no ground in all."""
        parts = np.stack([nodes[:, i : len(columns) - 2 + i : 2] for i in range(3)], 1)  # (3, 3, cells)
        first, last = columns[:-2:2], columns[2::2]
        good, gone = True, np.isnan(parts).all((0, 1))
        for x, y in ((0.25, 0.25), (0.25, 0.75)):
            guess = np.einsum('y,x,yxn->n', _weights(np.array(y)), _weights(np.array(x)), parts)
            truth = self._at(first + x * (last - first), top + y * (bottom - top))
            good = good & (np.abs(guess - truth) <= TOLERANCE * np.abs(parts).max((0, 1)))
            gone &= np.isnan(truth)
        return good | gone

    def _exact(self, left: int, right: int, top: int, bottom: int) -> np.ndarray:
        """Of these pixels, each divided into parts of less than COARSE."""
        n = max(1, min(math.ceil(self.ground.pixel / COARSE), 32))
        columns, rows = (np.arange(n * a, n * b + 1) / n for a, b in ((left, right), (top, bottom)))
        points = np.stack(np.meshgrid(columns, rows), -1)
        placed = self.ground.own(points.reshape(-1, 2), runs=points.shape[1])
        corners = self.ground.ellipsoid.vectors(*placed.T).reshape(*points.shape[:2], 3)
        areas = _quadrilaterals(corners[:-1, :-1], corners[:-1, 1:], corners[1:, 1:], corners[1:, :-1])
        areas = areas.reshape(bottom - top, n, right - left, n).sum((1, 3))
        return areas * self.ground.ellipsoid.radius**2

    def _at(self, columns: np.ndarray, rows: float | np.ndarray) -> np.ndarray:
        """Of a pixel about each of these points (N,), or of a metre if the pixels are smaller."""
        step = max(0.5, 0.5 / self.ground.pixel)
        centres = np.stack(np.broadcast_arrays(columns, rows), 1).astype(float)
        around = step * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])[:, None]
        placed = self.ground.own((centres + around).reshape(-1, 2))
        corners = self.ground.ellipsoid.vectors(*placed.T).reshape(4, -1, 3)
        return _quadrilaterals(*corners) * (self.ground.ellipsoid.radius / (2 * step)) ** 2

    def _choose(self) -> tuple[int, np.ndarray]:
        """The largest side in pixels of cells most of which can be interpolated, and their edges and middles."""
        for side in (128, 64, 32, 16, 8, 4) if self.ground.pixel <= COARSE else ():
            edges = np.minimum(np.arange(0, self.width + side, side), self.width)
            columns = np.interp(np.arange(2 * len(edges) - 1) / 2, np.arange(len(edges)), edges)
            well = []
            for top in np.unique(np.linspace(0, max(self.height - side, 0), 6).astype(int)):
                bottom = min(top + side, self.height)
                well.extend(self._well(self._nodes(columns, top, bottom), columns, top, bottom))
            if np.mean(well) >= 0.8:
                return side, columns
        return 1, np.arange(0)


def _weights(share: np.ndarray) -> np.ndarray:
    """(3, ...) of the values at 0, 1/2 and 1 in the parabola through them, at these shares of the way."""
    return np.stack([(2 * share - 1) * (share - 1), 4 * share * (1 - share), share * (2 * share - 1)])


def _quadrilaterals(a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray) -> np.ndarray:
    """Areas on the unit sphere (...) of small ones, from their corners (..., 3) in order."""
    up = a + b + c + d
    up = up / np.linalg.norm(up, axis=-1, keepdims=True)
    return np.abs((np.cross(c - a, d - b) * up).sum(-1)) / 2
