"""Open TIFF and JPEG 2000 files with GDAL (rasterio): any number of bands, any type, georeferenced or not."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from PIL import Image

from mmseg_volo.errors import UsageError

if TYPE_CHECKING:
    from rasterio import DatasetReader

DRIVERS = {  # first bytes -> GDAL's driver; only drivers that cannot refer to other files
    b'II*\0': 'GTiff',
    b'MM\0*': 'GTiff',
    b'II+\0': 'GTiff',
    b'MM\0+': 'GTiff',
    b'\0\0\0\x0cjP  \r\n\x87\n': 'JP2OpenJPEG',
    b'\xff\x4f\xff\x51': 'JP2OpenJPEG',
}
GEO_KEYS = 34735  # the tag that makes a TIFF a GeoTIFF
FENCE = dict(  # settings of GDAL while it opens a file: it neither lists the folder nor uses the network
    GDAL_DISABLE_READDIR_ON_OPEN='TRUE',
    CPL_VSIL_CURL_ALLOWED_EXTENSIONS='none',
)
_QUIET: list[str] = []  # modules whose warnings are off


def rasterio_module() -> ModuleType | None:
    """Import rasterio, without its warning about files that have no georeference; None if it is not installed."""
    try:
        import rasterio
    except ImportError:
        return None
    if not _QUIET:
        warnings.filterwarnings('ignore', category=rasterio.errors.NotGeoreferencedWarning)
        _QUIET.append('rasterio')
    module: ModuleType = rasterio
    return module


def driver_of(head: bytes) -> str | None:
    """Return the driver in `DRIVERS` for a file with these first bytes."""
    return next((driver for start, driver in DRIVERS.items() if head.startswith(start)), None)


@contextlib.contextmanager
def open_any(source: str | Path | bytes) -> Iterator[DatasetReader | None]:
    """Open a TIFF or JPEG 2000 file, or the content of one, with rasterio.

    Yields:
        The raster; None for other files, if rasterio is not installed, or if GDAL cannot read it.

    Raises:
        UsageError: see `_open`.
    """
    rasterio = rasterio_module()
    if not isinstance(source, bytes) and not _is_utf8(source):
        source = Path(source).read_bytes()
    driver = driver_of(source[:12] if isinstance(source, bytes) else _head(Path(source)))
    if rasterio is None or driver is None:
        yield None
        return
    with contextlib.ExitStack() as stack:
        try:
            if isinstance(source, bytes):
                memory = stack.enter_context(rasterio.MemoryFile(source))
                with rasterio.Env(**FENCE):
                    raster = stack.enter_context(memory.open(driver=driver))
            else:
                raster = stack.enter_context(_open(Path(source), driver))
        except UsageError:
            raise
        except Exception:  # a broken file makes GDAL raise anything: the next reader reports it
            raster = None
        yield raster


def open_georeferenced(path: Path) -> DatasetReader | None:
    """Open a georeferenced TIFF or JPEG 2000 file; None for other files, or if rasterio is not installed.

    Raises:
        UsageError: GDAL cannot open a file of this name, or see `_open`.
    """
    rasterio = rasterio_module()
    if rasterio is None or not path.is_file() or (driver := driver_of(_head(path))) is None:
        return None
    if not _is_utf8(path) and loses_georeference(path):
        raise UsageError(f'{path}: GDAL opens only files whose name is UTF-8: rename it to keep its georeference')
    try:
        raster = _open(path, driver)
    except UsageError:
        raise
    except Exception:  # a broken file makes GDAL raise anything: reading it as a picture reports it
        return None
    if is_georeferenced(raster):
        return raster
    raster.close()
    return None


def _open(path: Path, driver: str) -> DatasetReader:
    """Open a file with a driver of GDAL. GDAL also opens a mask beside the file, and that with any driver.

    Raises:
        UsageError: the mask is no TIFF file: its driver might follow it to other files and addresses.
    """
    for mask in (Path(f'{path}.msk'), Path(f'{path}.MSK')):
        if os.path.lexists(mask) and not (mask.is_file() and driver_of(_head(mask)) == 'GTiff'):
            raise UsageError(f'{mask}: the mask beside an image must be a TIFF file, but this is not: remove it')
    rasterio = rasterio_module()
    assert rasterio is not None, 'both callers return early without rasterio'
    with rasterio.Env(**FENCE):
        return rasterio.open(os.path.abspath(path), driver=driver)  # a relative path may look like an address


def is_georeferenced(raster: DatasetReader) -> bool:
    """Whether a raster has a CRS, ground control points, RPCs or a transform."""
    return bool(raster.crs or raster.gcps[0] or raster.rpcs) or not raster.transform.is_identity


def _is_utf8(path: str | Path) -> bool:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def _head(path: Path) -> bytes:
    with path.open('rb') as file:
        return file.read(12)


def forget_error(raster: DatasetReader) -> None:
    """Clear GDAL's error after a failed call: rasterio (1.4) would attribute it to the thread's next call."""
    with contextlib.suppress(Exception):
        _ = raster.colorinterp


def loses_georeference(path: Path) -> bool:
    """Whether a file is a GeoTIFF, whose georeference is lost when it is read without rasterio."""
    try:
        with Image.open(path) as picture:
            return GEO_KEYS in getattr(picture, 'tag_v2', ())
    except Exception:  # a broken file makes Pillow raise anything
        return False
