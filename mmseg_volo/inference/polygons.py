"""Masks as polygons, in GeoJSON (RFC 7946)."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmseg_volo.errors import UsageError

DECIMALS = {'degrees': 9, 'pixels': 0, 'crs units': 4}  # a tenth of a millimetre
BATCH = 2000  # polygons whose coordinates are transformed at once


@dataclass(frozen=True)
class Ground:
    """Where the pixels of an image lie.

    Args:
        transform: `affine.Affine` from (column, row) to the coordinates of the CRS; None without georeference.
        crs: `rasterio.crs.CRS`, if known.
    """

    transform: Any = None
    crs: Any = None

    @property
    def units(self) -> str:
        """Of the polygons' coordinates: WGS 84 where the CRS is known, as RFC 7946 has it."""
        if self.transform is None:
            return 'pixels'
        return 'degrees' if self.crs else 'crs units'

    @property
    def square_metres(self) -> float | None:
        """Of a pixel, where the CRS is projected."""
        if self.transform is None or not self.crs or not self.crs.is_projected:
            return None
        return abs(self.transform.determinant) * self.crs.linear_units_factor[1] ** 2

    def place(self, corners: np.ndarray) -> np.ndarray:
        """(N, 2) columns and rows, of pixels' corners, to (N, 2) coordinates; pixels stay as they are."""
        if self.transform is None:
            return corners
        placed = _mapped(corners, self.transform)
        if self.crs:
            from rasterio.warp import transform

            placed = np.stack(transform(self.crs, 'EPSG:4326', *placed.T)[:2], 1)
        return placed


def _mapped(points: np.ndarray, by: Any) -> np.ndarray:
    x, y = points.T
    return np.stack([by.a * x + by.b * y + by.c, by.d * x + by.e * y + by.f], 1)


def need_rasterio(what: str) -> None:
    """Raises:
    UsageError: rasterio is not installed.
    """
    try:
        import rasterio.features  # noqa: F401
    except ImportError as error:
        raise UsageError(f'{what}: this needs rasterio, pip install rasterio') from error


def geojson(mask: Any, classes: Sequence[str], ground: Ground, nodata: int | None = None) -> Iterator[bytes]:
    """A FeatureCollection with a feature for each connected area (by edges) of one class.

    A feature's properties are `class`, `index`, `pixels` and, where the CRS is projected, `square_metres`. The foreign
    member `units` says what the coordinates are: degrees (longitude, latitude), pixels (column, row, of corners, the
    image's upper left one is 0, 0), or those of a georeference without CRS.

    Args:
        mask: class indices (H, W), or a band of an open raster, `rasterio.band(raster, 1)`.
        nodata: an index to be left out.

    Yields:
        The file's content, piece by piece.
    """
    import rasterio.features

    yield f'{{"type": "FeatureCollection", "units": "{ground.units}", "features": ['.encode()
    shapes = ((shape['coordinates'], int(i)) for shape, i in rasterio.features.shapes(mask) if i != nodata)
    # a band's polygons come in the coordinates of its georeference
    back = None if isinstance(mask, np.ndarray) else ~mask.ds.transform
    first = True
    while batch := [*itertools.islice(shapes, BATCH)]:
        rings = [np.array(ring) for polygon, _ in batch for ring in polygon]
        if back is not None:
            rings = [np.rint(_mapped(ring, back)) for ring in rings]
        for feature in _features(batch, rings, classes, ground):
            yield (b'\n' if first else b',\n') + json.dumps(feature).encode()
            first = False
    yield b'\n]}\n'


def _features(
    batch: Sequence[tuple[Sequence, int]], rings: Sequence[np.ndarray], classes: Sequence[str], ground: Ground
) -> Iterator[dict[str, Any]]:
    """Of polygons and their classes; `rings` are those of all polygons, one after the other, in pixels."""
    placed = ground.place(np.concatenate(rings)).round(DECIMALS[ground.units])
    placed = iter(np.split(placed, np.cumsum([len(ring) for ring in rings])[:-1]))
    corners = iter(rings)
    for polygon, index in batch:
        coordinates, pixels = [], 0
        for i in range(len(polygon)):
            ring = next(placed)
            size = abs(_area(next(corners)))
            pixels += -size if i else size  # the first is the outer one, the others are holes
            # the outer one is counterclockwise, holes are clockwise
            coordinates.append((ring if (_area(ring) > 0) == (i == 0) else ring[::-1]).tolist())
        properties = {'class': classes[index], 'index': index, 'pixels': round(pixels)}
        if ground.square_metres is not None:
            properties['square_metres'] = round(pixels * ground.square_metres, 3)
        yield dict(type='Feature', properties=properties, geometry=dict(type='Polygon', coordinates=coordinates))


def _area(ring: np.ndarray) -> float:
    """Of a closed ring (N, 2), positive if it is counterclockwise where y goes up."""
    x, y = (ring - ring[0]).T
    return float((x[:-1] * y[1:] - x[1:] * y[:-1]).sum() / 2)
