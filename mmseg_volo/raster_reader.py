"""TIFF and JPEG 2000 files through GDAL (rasterio): any number of bands, any type, georeferenced or not, by windows."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mmseg_volo.errors import UsageError
from mmseg_volo.progress import Bar
from mmseg_volo.value_ranges import LOGGER, NODATA_RGB, Tell, check_range, to_bytes

DRIVERS = {  # GDAL's, by how a file begins; none that could lead to other files
    b'II*\0': 'GTiff',
    b'MM\0*': 'GTiff',
    b'II+\0': 'GTiff',
    b'MM\0+': 'GTiff',
    b'\0\0\0\x0cjP  \r\n\x87\n': 'JP2OpenJPEG',
    b'\xff\x4f\xff\x51': 'JP2OpenJPEG',
}
GEO_KEYS = 34735  # the tag of TIFF that makes it a GeoTIFF
_QUIET: list[None] = []  # whether the warning is off
PIECE = 64 << 20  # bytes that are looked at at once
Window = tuple[tuple[int, int], tuple[int, int]]  # (top, bottom), (left, right)


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
        The raster; None where rasterio is not installed or GDAL cannot read it.
    """
    rasterio = rasterio_module()
    if rasterio is None:
        yield None
        return
    with contextlib.ExitStack() as stack:
        try:
            if isinstance(source, bytes):
                memory = stack.enter_context(rasterio.MemoryFile(source))
                raster = stack.enter_context(memory.open(driver=driver_of(source[:12])))
            else:
                raster = stack.enter_context(rasterio.open(source, driver=driver_of(_head(Path(source)))))
        except Exception:  # whatever GDAL makes of a broken file: what is wrong is said when it is read otherwise
            raster = None
        yield raster


def open_georeferenced(path: Path) -> Any | None:
    """A georeferenced TIFF or JPEG 2000 file, opened; None of other files, or where rasterio is not installed."""
    rasterio = rasterio_module()
    if rasterio is None or not path.is_file() or (driver := driver_of(_head(path))) is None:
        return None
    try:
        raster = rasterio.open(path, driver=driver)
    except Exception:  # whatever GDAL makes of a broken file: what is wrong is said when it is read as a picture
        return None
    if is_georeferenced(raster):
        return raster
    raster.close()
    return None


def is_georeferenced(raster: Any) -> bool:
    """Whether a raster says where on the ground it lies, in any way."""
    return bool(raster.crs or raster.gcps[0] or raster.rpcs) or not raster.transform.is_identity


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


def colours_of(raster: Any) -> np.ndarray | None:
    """The colour table of a raster of one band, uint8 RGB (n, 3); None of another."""
    kinds = {kind.name for kind in raster.colorinterp} - {'alpha'}
    if kinds != {'palette'} or raster.dtypes[0] not in ('uint8', 'uint16'):
        return None
    table = raster.colormap(1)
    colours = np.zeros((1 << (8 if raster.dtypes[0] == 'uint8' else 16), 3), np.uint8)
    colours[[*table]] = [entry[:3] for entry in table.values()]
    return colours


def native(raster: Any, bands: Sequence[int] | None = None, window: Window | None = None) -> np.ndarray:
    """The pixels (C, n, m) of bands as they are, or of all: those of a palette in its colours, white is the largest."""
    colours = colours_of(raster) if bands is None else None
    if colours is not None:
        return colours[raster.read(1, window=window)].transpose(2, 0, 1)
    pixels = raster.read(None if bands is None else list(bands), window=window)
    if raster.tags(ns='IMAGE_STRUCTURE').get('MINISWHITE') == 'YES' and pixels.dtype.kind == 'u':
        pixels = np.iinfo(pixels.dtype).max - pixels
    return pixels


def missing(
    raster: Any, bands: Sequence[int] | None, pixels: np.ndarray, window: Window | None = None
) -> np.ndarray | None:
    """Where an image has no data: its nodata value, its mask, alpha of 0 where alpha is no band of it, or no number.

    Args:
        bands, window: see `native`.
        pixels: what that gives.

    Returns:
        bool, of the shape of `pixels`; None if all is there. Of bytes a pixel is missing when all its bands are, as
        dark ones may hold the nodata value 0 in one.
    """
    wanted = [*raster.indexes] if bands is None else list(bands)
    where = None
    if is_masked(raster, bands):
        if pixels.dtype == np.uint8:
            where = np.broadcast_to(raster.dataset_mask(window=window) == 0, pixels.shape)
        else:
            where = raster.read_masks(wanted, window=window) == 0
    if pixels.dtype.kind == 'f':
        unknown = ~np.isfinite(pixels)
        where = unknown if where is None else where | unknown
    return where if where is not None and where.any() else None


def is_masked(raster: Any, bands: Sequence[int] | None = None) -> bool:
    """Whether a raster says where it has no data."""
    kinds = [kind.name for kind in raster.colorinterp]
    if 'alpha' in kinds and kinds.index('alpha') + 1 in ([*raster.indexes] if bands is None else bands):
        return False  # the network was trained on it as on any band
    return any('all_valid' not in [flag.name for flag in flags] for flags in raster.mask_flag_enums)


class RasterPixels:
    """Stands for the tensor (C, H, W) of a raster, of which slices are read when they are asked for.

    Args:
        raster: open.
        loading: the first step of the model's test pipeline. Of `LoadBands` the slices are float32, normalised, in the
            order of the bands; else there are three channels, uint8 BGR, by the rules of `value_ranges`.
        bands, value_range: see `inference.Options`.
        device: of the slices.
        name: for messages.
        tell: see `check_range`.

    Raises:
        UsageError: it is not said which bands to take, there are none such, or they are of another type.
    """

    def __init__(
        self,
        raster: Any,
        loading: Mapping[str, Any] | None = None,
        bands: Sequence[int] | None = None,
        value_range: Sequence[float] | None = None,
        device: torch.device | str = 'cpu',
        name: str | Path = '',
        tell: Tell = LOGGER.warning,
    ):
        self.raster, self.value_range, self.normal = raster, value_range, None
        self.name, self.tell = str(name or raster.name), tell
        self.device = torch.device(device)
        self.is_cuda, self._checked = self.device.type == 'cuda', False
        channels, dtype = 3, raster.dtypes[0]
        palette = bands is None and colours_of(raster) is not None
        if loading is not None and loading['type'] == 'LoadBands':
            self.normal = [np.array(loading[key], np.float32)[:, None, None] for key in ('mean', 'std')]
            channels, wanted = len(self.normal[0]), loading.get('dtype')
            if wanted not in (None, 'uint8' if palette else dtype):
                raise UsageError(f'{self.name} is of {dtype}, expected {wanted}, as in training')
            if bands is None and raster.count == channels:
                bands = range(1, channels + 1)
        self.bands = None if palette and channels == 3 else _bands(raster, channels, bands, self.name)
        self.shape = torch.Size((channels, raster.height, raster.width))

    @property
    def masked(self) -> bool:
        """Whether the raster says where it has no data."""
        return is_masked(self.raster, self.bands)

    def valid(self, window: Window | None = None) -> np.ndarray:
        """bool (n, m): where the raster has data."""
        return self.raster.dataset_mask(window=window) > 0

    def __getitem__(self, place: tuple[slice, slice, slice]) -> Tensor:
        _, rows, columns = place
        top, bottom, _ = rows.indices(self.shape[1])
        left, right, _ = columns.indices(self.shape[2])
        pixels = self.read(((top, bottom), (left, right)))
        if self.normal is None:
            pixels = np.ascontiguousarray(pixels[::-1])  # BGR
        return torch.from_numpy(pixels).to(self.device)

    def read(self, window: Window | None = None) -> np.ndarray:
        """(C, n, m) of a window, or of the whole: uint8 RGB, or float32, normalised; neutral where there is no data."""
        pixels = native(self.raster, self.bands, window)
        gone = missing(self.raster, self.bands, pixels, window)
        if self.normal is not None:
            mean, std = self.normal
            pixels = np.nan_to_num((pixels.astype(np.float32) - mean) / std)
            return pixels if gone is None else np.where(gone, np.float32(0), pixels)
        pixels = to_bytes(pixels, self.value_range)
        colours = np.array(NODATA_RGB, np.uint8)[:, None, None]
        if gone is not None:
            return np.where(gone, colours, pixels)  # grey becomes three channels
        return pixels if len(pixels) == 3 else np.repeat(pixels, 3, 0)

    def rgb(self) -> np.ndarray:
        """The whole as uint8 RGB (H, W, 3), after `check`."""
        self.check()
        return np.ascontiguousarray(self.read().transpose(1, 2, 0))

    def picture(self, window: Window) -> np.ndarray:
        """(3, n, m), uint8 RGB, to look at; of other bands the first ones, two standard deviations about their mean."""
        pixels = self.read(window)
        if self.normal is not None:
            pixels = pixels[: 3 if len(pixels) >= 3 else 1]
            pixels = np.rint((pixels / 4 + 0.5).clip(0, 1) * 255).astype(np.uint8)
        return pixels if len(pixels) == 3 else np.repeat(pixels, 3, 0)

    def check(self) -> None:
        """Looks at all values, before anything is predicted, where there is a rule for them that they may break.

        Raises:
            UsageError: see `check_range`.
        """
        dtype = np.dtype(self.raster.dtypes[0])
        known, self._checked = self._checked, True
        if known or self.normal is not None or self.value_range is not None or dtype == np.uint8 or self.bands is None:
            return
        if dtype.kind not in 'uif':
            check_range(dtype, 0, 0, self.name)
        (_, height, width), block = self.shape, self.raster.block_shapes[0][0]
        step = max(PIECE // (width * dtype.itemsize * len(self.bands) * block), 1) * block
        low, high = np.inf, -np.inf
        with Bar(None, f'looking at the values of {Path(self.name).name}', height, 'row', leave=False) as bar:
            for top in range(0, height, step):
                window = ((top, min(top + step, height)), (0, width))
                pixels = native(self.raster, self.bands, window)
                gone = missing(self.raster, self.bands, pixels, window)
                pixels = pixels if gone is None else pixels[~gone]
                if pixels.size:
                    low, high = min(low, pixels.min()), max(high, pixels.max())
                bar.update(window[0][1] - top)
        if low <= high:
            check_range(dtype, low, high, self.name, self.tell)


def _bands(raster: Any, channels: int, bands: Sequence[int] | None, name: str) -> list[int]:
    kinds = [kind.name for kind in raster.colorinterp]
    seen = [i + 1 for i, kind in enumerate(kinds) if kind != 'alpha']
    if bands is not None:
        if max(bands) > raster.count or len(bands) not in (1, channels):
            raise UsageError(
                f'{name}: --bands {",".join(map(str, bands))}: expected {channels} of its {raster.count} bands, or one'
            )
        return list(bands)
    if channels == 3 and {'red', 'green', 'blue'} <= set(kinds):
        return [kinds.index(kind) + 1 for kind in ('red', 'green', 'blue')]
    if len(seen) in (1, channels):
        return seen
    raise UsageError(
        f'{name} has {raster.count} bands ({", ".join(kinds)}) and the network takes {channels}: say which by '
        f'--bands, e.g. --bands {",".join(map(str, range(1, channels + 1)))} (in Python bands=)'
    )
