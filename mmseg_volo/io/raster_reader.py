"""TIFF and JPEG 2000 files through GDAL (rasterio): any number of bands, any type, georeferenced or not, by windows."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image

from mmseg_volo.errors import UsageError

DRIVERS = {  # GDAL's, by how a file begins; none that could lead to other files
    b'II*\0': 'GTiff',
    b'MM\0*': 'GTiff',
    b'II+\0': 'GTiff',
    b'MM\0+': 'GTiff',
    b'\0\0\0\x0cjP  \r\n\x87\n': 'JP2OpenJPEG',
    b'\xff\x4f\xff\x51': 'JP2OpenJPEG',
}
GEO_KEYS = 34735  # the tag of TIFF that makes it a GeoTIFF
FENCE = dict(  # GDAL's settings while a file is opened: no list of its folder, and nothing from the network
    GDAL_DISABLE_READDIR_ON_OPEN='TRUE',
    CPL_VSIL_CURL_ALLOWED_EXTENSIONS='none',
)
_QUIET: list[None] = []  # whether the warning is off


def rasterio_module() -> Any | None:
    """rasterio, None where it is not installed; its warning about files without a georeference is not shown."""
    try:
        import rasterio
    except ImportError:
        return None
    if not _QUIET:
        _QUIET.append(warnings.filterwarnings('ignore', category=rasterio.errors.NotGeoreferencedWarning))
    return rasterio


def driver_of(head: bytes) -> str | None:
    """GDAL's name of the kind of file that begins so, if it is one of `DRIVERS`."""
    return next((driver for start, driver in DRIVERS.items() if head.startswith(start)), None)


@contextlib.contextmanager
def open_any(source: str | Path | bytes) -> Iterator[Any]:
    """A TIFF or JPEG 2000 file, or the content of one, opened by rasterio.

    Yields:
        The raster; None of other files, where rasterio is not installed, or where GDAL cannot read it.

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
        except Exception:  # whatever GDAL makes of a broken file: what is wrong is said when it is read otherwise
            raster = None
        yield raster


def open_georeferenced(path: Path) -> Any | None:
    """A georeferenced TIFF or JPEG 2000 file, opened; None of other files, or where rasterio is not installed.

    Raises:
        UsageError: GDAL cannot open it for its name, or see `_open`.
    """
    rasterio = rasterio_module()
    if rasterio is None or not path.is_file() or (driver := driver_of(_head(path))) is None:
        return None
    if not _is_utf8(path) and loses_georeference(path):
        raise UsageError(f'{path}: GDAL opens no file whose name is no UTF-8: rename it, to keep its georeference')
    try:
        raster = _open(path, driver)
    except UsageError:
        raise
    except Exception:  # whatever GDAL makes of a broken file: what is wrong is said when it is read as a picture
        return None
    if is_georeferenced(raster):
        return raster
    raster.close()
    return None


def _open(path: Path, driver: str) -> Any:
    """A file opened by that driver of GDAL, which reads a mask beside it, too, and that by any driver.

    Raises:
        UsageError: the mask is no TIFF file, but what may lead to other files and addresses.
    """
    for mask in (Path(f'{path}.msk'), Path(f'{path}.MSK')):
        if os.path.lexists(mask) and not (mask.is_file() and driver_of(_head(mask)) == 'GTiff'):
            raise UsageError(f'{mask}: the mask beside an image is a TIFF file, and this is none: remove it')
    rasterio = rasterio_module()
    with rasterio.Env(**FENCE):
        return rasterio.open(os.path.abspath(path), driver=driver)  # a relative path may look like an address


def is_georeferenced(raster: Any) -> bool:
    """Whether a raster says where on the ground it lies, in any way."""
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


def forget_error(raster: Any) -> None:
    """After a failed call: rasterio (1.4) takes GDAL's last error of a thread for one of its next call's, once."""
    with contextlib.suppress(Exception):
        _ = raster.colorinterp


def loses_georeference(path: Path) -> bool:
    """Whether it is a GeoTIFF; for where there is no rasterio."""
    try:
        with Image.open(path) as picture:
            return GEO_KEYS in getattr(picture, 'tag_v2', ())
    except Exception:  # whatever a broken file makes Pillow raise
        return False
