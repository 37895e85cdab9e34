"""Where the pixels of an image lie on the ground: longitudes, latitudes, equal areas; rasterio projects."""

from __future__ import annotations

import math
import re
import sys
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Ellipsoid:
    """Args:
    a: semi-major axis in metres.
    f: flattening; 0 of a sphere.
    """

    a: float
    f: float

    @property
    def eccentricity(self) -> float:
        return math.sqrt(self.f * (2 - self.f))

    @cached_property
    def radius(self) -> float:
        """Of the sphere with the same area."""
        return self.a * math.sqrt(float(self._q(np.array(1.0))) / 2)

    def _q(self, sine: np.ndarray) -> np.ndarray:
        e = self.eccentricity
        if not e:
            return 2 * sine
        return (1 - e * e) * (sine / (1 - (e * sine) ** 2) + np.arctanh(e * sine) / e)

    def height(self, latitude: np.ndarray) -> np.ndarray:
        """Degrees -> -1 to 1, the sine of the authalic latitude: between two of them lies half their difference of the
        whole area (Snyder, Map Projections: A Working Manual, equations 3-11 and 3-12).
        """
        return self._q(np.sin(np.radians(latitude))) / self._q(np.array(1.0))

    def vectors(self, longitude: np.ndarray, latitude: np.ndarray) -> np.ndarray:
        """Degrees (N,) -> (N, 3) of length 1, on the sphere with the same areas (by a series for the
        authalic latitude, exact to 1e-8 on the Earth, which does not round near the poles as the closed formula does).
        """
        e2 = self.eccentricity**2
        lat, angle = np.radians(latitude), np.radians(longitude)
        phi = lat - (e2 / 3 + 31 * e2**2 / 180 + 59 * e2**3 / 560) * np.sin(2 * lat)
        phi = phi + (17 * e2**2 / 360 + 61 * e2**3 / 1260) * np.sin(4 * lat) - 383 * e2**3 / 45360 * np.sin(6 * lat)
        return np.stack([np.cos(phi) * np.cos(angle), np.cos(phi) * np.sin(angle), np.sin(phi)], -1)


WGS84 = Ellipsoid(6378137.0, 1 / 298.257223563)


@dataclass(frozen=True)
class Ground:
    """Where the pixels of an image lie.

    Args:
        transform: `affine.Affine` from (column, row) to the coordinates of the CRS; None without georeference. One
            that is not usable is taken for none.
        crs: `rasterio.crs.CRS`, if known.
    """

    transform: Any = None
    crs: Any = None

    def __post_init__(self) -> None:
        if self.transform is not None and not is_usable(self.transform):
            object.__setattr__(self, 'transform', None)

    @property
    def units(self) -> str:
        """Of the polygons' coordinates: WGS 84 where the CRS is one of the Earth, as RFC 7946 has it."""
        if self.transform is None:
            return 'pixels'
        return 'degrees' if self.ellipsoid and self._on_earth else 'crs units'

    @cached_property
    def _told(self) -> tuple[dict[str, Any], dict[str, Any] | None]:
        """What PROJ says of the horizontal CRS, and of its ellipsoid."""
        told = self.crs.to_dict(projjson=True)
        while inner := told.get('source_crs') or (told.get('components') or [None])[0]:
            told = inner
        base = told
        while 'base_crs' in base:
            base = base['base_crs']
        datum = base.get('datum') or base.get('datum_ensemble') or {}
        return told, datum.get('ellipsoid')

    @cached_property
    def _own(self) -> Ellipsoid | None:
        if self.transform is None or not self.crs:
            return None
        told, ellipsoid = self._told
        if ellipsoid is None or told['type'] == 'GeodeticCRS':  # of no planet, or from its centre
            return None
        a = _metres(ellipsoid.get('semi_major_axis') or ellipsoid['radius'])
        factor = self.crs.units_factor[1] * (a if self.crs.is_geographic else 1)
        if max(map(abs, (*self.transform[:2], *self.transform[3:5]))) * factor > 2 * math.pi * a:
            return None  # pixels that are larger than the planet
        if 'semi_minor_axis' in ellipsoid:
            return Ellipsoid(a, 1 - _metres(ellipsoid['semi_minor_axis']) / a)
        inverse = ellipsoid.get('inverse_flattening', 0)
        return Ellipsoid(a, 1 / inverse if inverse else 0.0)

    @property
    def _on_earth(self) -> bool:
        return abs(self._own.a / WGS84.a - 1) < 0.01

    @cached_property
    def ellipsoid(self) -> Ellipsoid | None:
        """On which areas are: the CRS's own one, WGS 84 where that is a sphere for the Earth, as Web maps' and MODIS's,
        of which the latitudes are WGS 84's; None where there is no ground.
        """
        own = self._own
        return WGS84 if own and self._on_earth and not own.f else own

    @cached_property
    def is_lonlat(self) -> bool:
        """Whether the coordinates are longitude and latitude, so that straight edges of pixels stay straight."""
        return self.ellipsoid is not None and self._told[0]['type'] == 'GeographicCRS'

    @cached_property
    def _source(self) -> Any:
        """The CRS, without a code of ESRI's: PROJ looks for it in each call, which takes 8 ms."""
        from rasterio.crs import CRS

        try:
            wkt = self.crs.to_wkt()
        except Exception:  # what the older WKT cannot say
            return self.crs
        bare = re.sub(r',AUTHORITY\["ESRI","[^"]*"\]\]$', ']', wkt)
        return self.crs if bare == wkt else CRS.from_wkt(bare)

    @cached_property
    def _longlat(self) -> Any:
        """Longitude and latitude on the CRS's own ellipsoid, to which no datum is shifted."""
        from rasterio.crs import CRS

        own = self._own
        return CRS.from_dict(proj='longlat', a=own.a, b=own.a * (1 - own.f))

    @cached_property
    def is_wgs84(self) -> bool:
        """Whether longitudes and latitudes of the CRS's own are WGS 84's."""
        told = self._told[0]
        while 'base_crs' in told:
            told = told['base_crs']
        return (
            (told.get('datum') or told.get('datum_ensemble')).get('name', '').startswith('World Geodetic System 1984')
        )

    @cached_property
    def pixel(self) -> float:
        """The side of a pixel in metres, by the CRS's own units."""
        factor = self.crs.units_factor[1] * (self._own.a if self.crs.is_geographic else 1)
        return math.sqrt(abs(self.transform.determinant)) * factor

    def coordinates(self, points: np.ndarray) -> np.ndarray:
        """(N, 2) columns and rows, of pixels' corners, to (N, 2) of the CRS; pixels stay as they are."""
        return points if self.transform is None else mapped(points, self.transform)

    def own(self, points: np.ndarray, runs: int = 0) -> np.ndarray:
        """(N, 2) columns and rows to (N, 2) longitude and latitude on the CRS's ellipsoid, in degrees.

        Where nothing of the ground is, as beside a full disk, both are NaN. Longitudes are as they come: of a CRS of
        longitude and latitude they go on beyond 180.

        Args:
            runs: if not 0, the points are rows of so many, and of a row what lies off the ground is a run or two.
        """
        placed = mapped(points, self.transform)
        if self.is_lonlat:
            placed = np.degrees(placed * self.crs.units_factor[1])
            return np.stack([placed[:, 0], placed[:, 1].clip(-90, 90)], 1)
        return transformed(self._source, self._longlat, placed, runs)

    def wgs84(self, points: np.ndarray) -> np.ndarray:
        """(N, 2) columns and rows to (N, 2) longitude and latitude on WGS 84, else as `own`."""
        placed = mapped(points, self.transform)
        if not self.is_lonlat:
            return transformed(self._source, 'EPSG:4326', placed)
        own = self.own(points)
        placed[:, 1] = np.radians(own[:, 1]) / self.crs.units_factor[1]
        found = transformed(self._source, 'EPSG:4326', placed)
        found[:, 0] += 360 * np.rint((own[:, 0] - found[:, 0]) / 360)
        return np.stack([found[:, 0], found[:, 1].clip(-90, 90)], 1)

    def turn(self, points: np.ndarray) -> int:
        """1 if a ring that is counterclockwise by columns and rows, as if rows went up, is so on the ground; else -1.

        Args:
            points: (N, 2) columns and rows at which it may be found out.
        """
        if self.is_lonlat:
            return 1 if self.transform.determinant > 0 else -1
        for point in points:
            corners = self.ellipsoid.vectors(*self.own(point + [[0, 0], [1, 0], [0, 1]]).T)
            sign = np.cross(corners[1] - corners[0], corners[2] - corners[0]) @ corners[0]
            if sign:  # and not NaN
                return 1 if sign > 0 else -1
        return -1


def _metres(length: Any) -> float:
    """Of PROJJSON: a number, or one with its unit."""
    return length['value'] * length['unit']['conversion_factor'] if isinstance(length, dict) else length


def is_usable(by: Any) -> bool:
    """Whether an `affine.Affine` keeps pixels apart: it is of numbers, maps them to no line or point, and they are not
    too small to be told apart so far from 0.
    """
    if not all(map(math.isfinite, by[:6])) or not 0 < abs(by.determinant) < math.inf:
        return False
    return math.sqrt(abs(by.determinant)) > 8 * sys.float_info.epsilon * max(abs(by.c), abs(by.f))


def mapped(points: np.ndarray, by: Any) -> np.ndarray:
    """(N, 2) by an `affine.Affine`."""
    x, y = points.T
    return np.stack([by.a * x + by.b * y + by.c, by.d * x + by.e * y + by.f], 1)


def transformed(source: Any, target: Any, points: np.ndarray, runs: int = 0) -> np.ndarray:
    """(N, 2) from a CRS to another, NaN where that cannot be. rasterio raises if one of many points cannot be.

    Args:
        runs: see `Ground.own`.
    """
    from rasterio.warp import transform

    if not len(points):
        return points
    try:
        found = np.stack(transform(source, target, *points.T)[:2], 1)
        found[~np.isfinite(found).all(1)] = np.nan
        return found
    except Exception:  # of GDAL's own types, which are no RasterioError
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
