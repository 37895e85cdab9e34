"""Locates the pixels of an image on the ground: longitudes, latitudes, equal areas; rasterio projects."""

from __future__ import annotations

import math
import re
import sys
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from affine import Affine
    from rasterio.crs import CRS


@dataclass(frozen=True)
class Ellipsoid:
    """A planet's shape.

    Args:
        a: semi-major axis in metres.
        f: flattening; 0 for a sphere.
    """

    a: float
    f: float

    @property
    def eccentricity(self) -> float:
        return math.sqrt(self.f * (2 - self.f))

    @cached_property
    def radius(self) -> float:
        """Radius in metres of the sphere with the same area."""
        return self.a * math.sqrt(float(self._q(np.array(1.0))) / 2)

    def _q(self, sine: NDArray[np.float64]) -> NDArray[np.float64]:
        e = self.eccentricity
        if not e:
            return 2 * sine
        return (1 - e * e) * (sine / (1 - (e * sine) ** 2) + np.arctanh(e * sine) / e)

    def height(self, latitude: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the sines of authalic latitudes, -1 to 1, from latitudes in degrees: between two of them lies half
        their difference of the whole area (Snyder, Map Projections: A Working Manual, equations 3-11 and 3-12).
        """
        heights: NDArray[np.float64] = self._q(np.sin(np.radians(latitude))) / self._q(np.array(1.0))
        return heights

    def vectors(self, longitude: NDArray[np.float64], latitude: NDArray[np.float64]) -> NDArray[np.float64]:
        """Convert degrees (N,) to unit vectors (N, 3) on the sphere with the same areas.

        A series for the authalic latitude, exact to 1e-8 on the Earth, keeps the digits near the poles that the closed
        formula loses.
        """
        e2 = self.eccentricity**2
        lat, angle = np.radians(latitude), np.radians(longitude)
        phi = lat - (e2 / 3 + 31 * e2**2 / 180 + 59 * e2**3 / 560) * np.sin(2 * lat)
        phi = phi + (17 * e2**2 / 360 + 61 * e2**3 / 1260) * np.sin(4 * lat) - 383 * e2**3 / 45360 * np.sin(6 * lat)
        return np.stack([np.cos(phi) * np.cos(angle), np.cos(phi) * np.sin(angle), np.sin(phi)], -1)


WGS84 = Ellipsoid(6378137.0, 1 / 298.257223563)


@dataclass(frozen=True)
class Ground:
    """The georeference of an image.

    Args:
        transform: from (column, row) to the coordinates of the CRS; None without georeference. One that is not usable
            counts as None.
        crs: if known.
    """

    transform: Affine | None = None
    crs: CRS | None = None

    def __post_init__(self) -> None:
        if self.transform is not None and not is_usable(self.transform):
            object.__setattr__(self, 'transform', None)

    @property
    def units(self) -> str:
        """Units of polygons' coordinates: degrees on WGS 84 if the CRS is one of the Earth, as RFC 7946 requires."""
        if self.transform is None:
            return 'pixels'
        return 'degrees' if self.ellipsoid and self._on_earth else 'crs units'

    @cached_property
    def _projjson(self) -> tuple[dict[str, Any], dict[str, Any] | None]:
        """The PROJJSON of the horizontal CRS, and of its ellipsoid."""
        assert self.crs is not None
        crs: dict[str, Any] = self.crs.to_dict(projjson=True)
        while inner := crs.get('source_crs') or (crs.get('components') or [None])[0]:
            crs = inner
        base = crs
        while 'base_crs' in base:
            base = base['base_crs']
        datum = base.get('datum') or base.get('datum_ensemble') or {}
        return crs, datum.get('ellipsoid')

    @cached_property
    def _own(self) -> Ellipsoid | None:
        if self.transform is None or not self.crs:
            return None
        crs, ellipsoid = self._projjson
        if ellipsoid is None or crs['type'] == 'GeodeticCRS':  # of no planet, or geocentric
            return None
        a = _metres(ellipsoid.get('semi_major_axis') or ellipsoid['radius'])
        factor = self.crs.units_factor[1] * (a if self.crs.is_geographic else 1)
        if max(map(abs, (*self.transform[:2], *self.transform[3:5]))) * factor > 2 * math.pi * a:
            return None  # pixels larger than the planet
        if 'semi_minor_axis' in ellipsoid:
            return Ellipsoid(a, 1 - _metres(ellipsoid['semi_minor_axis']) / a)
        inverse = ellipsoid.get('inverse_flattening', 0)
        return Ellipsoid(a, 1 / inverse if inverse else 0.0)

    @property
    def _on_earth(self) -> bool:
        return self._own is not None and abs(self._own.a / WGS84.a - 1) < 0.01

    @cached_property
    def ellipsoid(self) -> Ellipsoid | None:
        """The ellipsoid for areas: the CRS's own, or WGS 84 if that is a sphere for the Earth, as of Web maps and
        MODIS, whose latitudes are WGS 84's; None if the ground is unknown.
        """
        own = self._own
        return WGS84 if own and self._on_earth and not own.f else own

    @cached_property
    def is_lonlat(self) -> bool:
        """Whether the coordinates are longitude and latitude, so that straight edges of pixels stay straight."""
        return self.ellipsoid is not None and self._projjson[0].get('type') == 'GeographicCRS'

    @cached_property
    def _source(self) -> CRS:
        """The CRS without an ESRI code, which PROJ would look up in each call (8 ms)."""
        from rasterio.crs import CRS

        assert self.crs is not None
        try:
            wkt = self.crs.to_wkt()
        except Exception:  # the older WKT cannot express it
            return self.crs
        bare = re.sub(r',AUTHORITY\["ESRI","[^"]*"\]\]$', ']', wkt)
        return self.crs if bare == wkt else CRS.from_wkt(bare)

    @cached_property
    def _longlat(self) -> CRS:
        """Longitude and latitude on the CRS's own ellipsoid, without a datum shift."""
        from rasterio.crs import CRS

        own = self._own
        assert own is not None
        return CRS.from_dict(proj='longlat', a=own.a, b=own.a * (1 - own.f))

    @cached_property
    def is_wgs84(self) -> bool:
        """Whether the CRS's own longitudes and latitudes are WGS 84's."""
        crs = self._projjson[0]
        while 'base_crs' in crs:
            crs = crs['base_crs']
        name: str = (crs.get('datum') or crs['datum_ensemble']).get('name', '')
        return name.startswith('World Geodetic System 1984')

    @cached_property
    def pixel(self) -> float:
        """The side of a pixel in metres, by the CRS's own units."""
        assert self.transform is not None and self.crs is not None and self._own is not None
        factor: float = self.crs.units_factor[1] * (self._own.a if self.crs.is_geographic else 1)
        return math.sqrt(abs(self.transform.determinant)) * factor

    def coordinates(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Convert columns and rows (N, 2) of pixels' corners to the CRS; without a transform they stay as they are."""
        return points if self.transform is None else mapped(points, self.transform)

    def own(self, points: NDArray[np.float64], runs: int = 0) -> NDArray[np.float64]:
        """Convert columns and rows (N, 2) to longitude and latitude on the CRS's ellipsoid, in degrees.

        Off the ground, as beside a full disk, both are NaN. Longitudes of a geographic CRS may go on beyond 180.

        Args:
            runs: if not 0, the points are rows of so many, and what lies off the ground is a run or two of each row.
        """
        assert self.transform is not None and self.crs is not None
        placed = mapped(points, self.transform)
        if self.is_lonlat:
            placed = np.degrees(placed * self.crs.units_factor[1])
            return np.stack([placed[:, 0], placed[:, 1].clip(-90, 90)], 1)
        return transformed(self._source, self._longlat, placed, runs)

    def wgs84(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Convert columns and rows (N, 2) to longitude and latitude on WGS 84, otherwise like `own`."""
        assert self.transform is not None and self.crs is not None
        placed = mapped(points, self.transform)
        if not self.is_lonlat:
            return transformed(self._source, 'EPSG:4326', placed)
        own = self.own(points)
        placed[:, 1] = np.radians(own[:, 1]) / self.crs.units_factor[1]
        longitude, latitude = transformed(self._source, 'EPSG:4326', placed).T
        longitude = longitude + 360 * np.rint((own[:, 0] - longitude) / 360)
        return np.stack([longitude, latitude.clip(-90, 90)], 1)

    def turn(self, points: NDArray[np.float64]) -> int:
        """Return 1 if a ring that is counterclockwise by columns and rows, as if rows went up, is so on the ground,
        otherwise -1.

        Args:
            points: columns and rows (N, 2) to try; the first one on the ground decides.
        """
        assert self.transform is not None and self.ellipsoid is not None
        if self.is_lonlat:
            return 1 if self.transform.determinant > 0 else -1
        triangles = (points[:, None] + [[0, 0], [1, 0], [0, 1]]).reshape(-1, 2)
        corners = self.ellipsoid.vectors(*self.own(triangles).T).reshape(-1, 3, 3)
        edges = corners[:, 1:] - corners[:, :1]
        signs = (np.cross(edges[:, 0], edges[:, 1]) * corners[:, 0]).sum(1)
        signs = signs[np.isfinite(signs) & (signs != 0)]
        return 1 if len(signs) and signs[0] > 0 else -1


def _metres(length: Any) -> float:
    """Read a length from PROJJSON: a number, or one with its unit."""
    return float(length['value'] * length['unit']['conversion_factor'] if isinstance(length, dict) else length)


def is_usable(by: Affine) -> bool:
    """Return whether a transform keeps pixels apart: it is finite, does not map them to a line or a point, and they are
    large enough for float64 at their distance from 0.
    """
    if not all(map(math.isfinite, by[:6])) or not 0 < abs(by.determinant) < math.inf:
        return False
    return bool(math.sqrt(abs(by.determinant)) > 8 * sys.float_info.epsilon * max(abs(by.c), abs(by.f)))


def mapped(points: NDArray[np.float64], by: Affine) -> NDArray[np.float64]:
    """Apply a transform to points (N, 2)."""
    x, y = points.T
    return np.stack([by.a * x + by.b * y + by.c, by.d * x + by.e * y + by.f], 1)


def transformed(
    source: CRS | str, target: CRS | str, points: NDArray[np.float64], runs: int = 0
) -> NDArray[np.float64]:
    """Transform points (N, 2) from one CRS to another, NaN where that is impossible.

    rasterio raises if it is impossible for one of many points, so these are halved until it is found.

    Args:
        runs: see `Ground.own`.
    """
    from rasterio.warp import transform

    if not len(points):
        return points
    try:
        result = np.stack(transform(source, target, *points.T)[:2], 1)
        result[~np.isfinite(result).all(1)] = np.nan
        return result
    except Exception:  # GDAL's own errors are not RasterioErrors
        if len(points) == 1:
            return np.full((1, 2), np.nan)
    if runs and len(points) > runs:
        return np.concatenate([transformed(source, target, row, runs) for row in np.split(points, len(points) // runs)])
    if runs and len(points) > 3:
        probes = points[[0, len(points) // 2, -1]]
        if all(np.isnan(transformed(source, target, probe[None])).all() for probe in probes):
            return np.full((len(points), 2), np.nan)
    half = len(points) // 2
    return np.concatenate([transformed(source, target, part, runs) for part in (points[:half], points[half:])])
