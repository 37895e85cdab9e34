"""GeoTIFFs by windows: as the image that a segmentor cuts its own windows from, and as a file that grows row by row."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mmseg_volo.errors import UsageError
from mmseg_volo.files import scratch
from mmseg_volo.images import as_rgb

CACHE = 128  # MB of blocks that GDAL keeps; a row of blocks of 512 takes 31 MB of 20,000 RGB pixels
ROWS = 1024  # a strip or block that is higher is not kept so, nor one of which a row takes more than ROW_BYTES
ROW_BYTES = 256 << 20
LOSSLESS = ('deflate', 'lzw', 'zstd', 'lzma', 'packbits')
SPARE = 1 << 20  # bytes: a disk with less is taken for full
GEO_KEYS = 34735  # the tag of TIFF that makes it a GeoTIFF


def open_raster(path: Path) -> Any | None:
    """A georeferenced TIFF, opened; None of other files, or where rasterio is not installed."""
    try:
        import rasterio
    except ImportError:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', rasterio.errors.NotGeoreferencedWarning)
        try:
            raster = rasterio.open(path, driver='GTiff')
        except rasterio.errors.RasterioError:
            return None  # what is wrong with it is said when it is read as a picture
        if raster.crs or raster.gcps[0] or raster.transform != rasterio.Affine.identity():
            return raster
        raster.close()
    return None


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


class RasterPixels:
    """Stands for the tensor (C, H, W) of a raster, of which slices are read when they are asked for.

    Args:
        raster: from `open_raster`.
        loading: the first step of the model's test pipeline. Of `LoadBands` the slices are float32, normalised, in the
            order of the bands; else there are three channels, uint8 BGR.
        bands, value_range: see `Options`.
        device: of the slices.

    Raises:
        UsageError: it is not said which bands to take, there are none such, or they are of another type.
    """

    def __init__(
        self,
        raster: Any,
        loading: Mapping[str, Any],
        bands: Sequence[int] | None = None,
        value_range: Sequence[float] | None = None,
        device: torch.device | str = 'cpu',
    ):
        self.raster, self.value_range, self.normal = raster, value_range, None
        self.device = torch.device(device)
        self.is_cuda = self.device.type == 'cuda'
        channels = 3
        if loading['type'] == 'LoadBands':
            self.normal = [np.array(loading[key], np.float32)[:, None, None] for key in ('mean', 'std')]
            channels, wanted = len(self.normal[0]), loading.get('dtype')
            if wanted not in (None, raster.dtypes[0]):
                raise UsageError(f'it is of {raster.dtypes[0]}, expected {wanted}, as in training')
            if bands is None and raster.count == channels:
                bands = range(1, channels + 1)
        self.bands = _bands(raster, channels, bands)
        self.shape = torch.Size((channels, raster.height, raster.width))
        self.highest = 0  # seen in a 16-bit raster

    def __getitem__(self, place: tuple[slice, slice, slice]) -> Tensor:
        _, rows, columns = place
        top, bottom, _ = rows.indices(self.shape[1])
        left, right, _ = columns.indices(self.shape[2])
        pixels = self.read(((top, bottom), (left, right)))
        if self.normal is None:
            pixels = np.ascontiguousarray(pixels[::-1])  # BGR
        else:
            pixels = self._normalised(pixels)
        return torch.from_numpy(pixels).to(self.device)

    def _normalised(self, pixels: np.ndarray) -> np.ndarray:
        mean, std = self.normal
        return np.nan_to_num((pixels.astype(np.float32) - mean) / std)

    def read(self, window: tuple[tuple[int, int], tuple[int, int]] | None = None) -> np.ndarray:
        """(C, n, m) of a window ((top, bottom), (left, right)), or of the whole: uint8 RGB, or bands as they are."""
        pixels = self.raster.read(self.bands, window=window)
        if self.normal is not None:
            return pixels
        if self.value_range is not None:
            low, high = self.value_range
            share = (pixels.astype(np.float32) - low) / (high - low)
            pixels = np.rint(np.nan_to_num(share).clip(0, 1) * 255).astype(np.uint8)
        elif pixels.dtype == np.uint16:
            self.highest = max(self.highest, int(pixels.max()))
            pixels = (pixels >> 8).astype(np.uint8)
        elif pixels.dtype != np.uint8:
            pixels = self._by_rule(pixels, window)
        return pixels if len(pixels) == 3 else np.repeat(pixels, 3, 0)  # grey

    def picture(self, window: tuple[tuple[int, int], tuple[int, int]]) -> np.ndarray:
        """(3, n, m), uint8 RGB, to look at; of other bands the first ones, two standard deviations about their mean."""
        pixels = self.read(window)
        if self.normal is not None:
            pixels = self._normalised(pixels)[: 3 if len(pixels) >= 3 else 1]
            pixels = np.rint((pixels / 4 + 0.5).clip(0, 1) * 255).astype(np.uint8)
        return pixels if len(pixels) == 3 else np.repeat(pixels, 3, 0)

    def _by_rule(self, pixels: np.ndarray, window: Any) -> np.ndarray:
        valid = self.raster.read_masks(self.bands, window=window) > 0
        pixels = np.where(valid, pixels, 0)
        try:
            return np.stack([as_rgb(one)[..., 0] for one in pixels])
        except UsageError as error:
            raise UsageError(f'{error}, or say by --value-range LOW HIGH what is to be black and white') from None

    def check(self) -> None:
        """After all was read.

        Raises:
            UsageError: 16 bits were of 8 bits' range, so all was black.
        """
        if 0 < self.highest <= 255:
            raise UsageError(
                f'uint16 goes from 0 to 65535, here to {self.highest} only: say by --value-range 0 255 what is to be '
                f'black and white'
            )


def _bands(raster: Any, channels: int, bands: Sequence[int] | None) -> list[int]:
    kinds = [kind.name for kind in raster.colorinterp]
    seen = [i + 1 for i, kind in enumerate(kinds) if kind != 'alpha']
    if bands is not None:
        if max(bands) > raster.count or len(bands) not in (1, channels):
            raise UsageError(
                f'--bands {",".join(map(str, bands))}: expected {channels} of its {raster.count} bands, or one'
            )
        return list(bands)
    if channels == 3 and {'red', 'green', 'blue'} <= set(kinds):
        return [kinds.index(kind) + 1 for kind in ('red', 'green', 'blue')]
    if len(seen) in (1, channels):
        return seen
    raise UsageError(
        f'it has {raster.count} bands ({", ".join(kinds)}) and the network takes {channels}: say which by '
        f'--bands, e.g. --bands {",".join(map(str, range(1, channels + 1)))}'
    )


class RasterFile:
    """A GeoTIFF with another's size, georeference and blocks, written row by row from the top, whole or not at all.

    Args:
        path: of the file.
        like: the other, open.
        count: of bands.
        dtype: of the pixels.
        nodata: value of pixels without a result; None if there are none.
        names: of the bands.
        palette: RGB, one per class, for viewers; of uint8.
    """

    def __init__(
        self,
        path: Path,
        like: Any,
        count: int,
        dtype: str,
        nodata: float | None = None,
        names: Sequence[str] = (),
        palette: Sequence[Sequence[int]] = (),
    ):
        import rasterio

        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self.scratch = path, scratch(path)
        profile = _layout(like, count, dtype)
        where = dict(crs=like.crs, transform=like.transform, width=like.width, height=like.height)
        points, points_crs = like.gcps
        if points:
            where = dict(gcps=points, crs=points_crs, width=like.width, height=like.height)
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', rasterio.errors.NotGeoreferencedWarning)
            self.file = rasterio.open(
                self.scratch, 'w', driver='GTiff', count=count, dtype=dtype, nodata=nodata, **where, **profile
            )
        if like.rpcs:
            self.file.rpcs = like.rpcs
        if names:
            self.file.descriptions = tuple(names)
        if len(palette) and dtype == 'uint8':
            self.file.write_colormap(1, {i: (*map(int, c), 255) for i, c in enumerate(palette[:256])})
        self._step = profile['blockysize']
        self._top = self._held = 0
        self._rows = np.empty((count, self._step, like.width), dtype)

    def write(self, rows: np.ndarray) -> None:
        """The next rows (count, n, W); they reach the file when a row of blocks is full."""
        while rows.shape[1]:
            n = min(self._step - self._held, rows.shape[1])
            self._rows[:, self._held : self._held + n] = rows[:, :n]
            self._held += n
            rows = rows[:, n:]
            if self._held == self._step:
                self._flush()

    def _flush(self) -> None:
        window = ((self._top, self._top + self._held), (0, self._rows.shape[2]))
        try:
            self.file.write(self._rows[:, : self._held], window=window)
        finally:
            self._room()
        self._top, self._held = self._top + self._held, 0

    def finish(self) -> Path:
        """Writes what is held; the file stays hidden until `with` ends. Returns its path until then."""
        if self._held:
            self._flush()
        if not self.file.closed:
            self.file.close()
            self._room()
        return self.scratch

    def _room(self) -> None:
        """GDAL does not tell a full disk from other errors, and when it closes a file from none."""
        if shutil.disk_usage(self.scratch.parent).free < SPARE:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))

    def __enter__(self) -> RasterFile:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if kind is None:
                self.finish()
                self.scratch.replace(self.path)
            else:
                self.file.close()
        finally:
            self.scratch.unlink(missing_ok=True)


def _layout(like: Any, count: int, dtype: str) -> dict[str, Any]:
    height, width = like.block_shapes[0]
    tiled = width != like.width
    if height > ROWS or count * height * like.width * np.dtype(dtype).itemsize > ROW_BYTES:
        tiled, height, width = False, 1 if count > 16 else 16, like.width
    compress = str(like.profile.get('compress', '')).lower()
    layout = dict(blockysize=min(height, like.height), tiled=tiled, BIGTIFF='IF_SAFER', interleave='band')
    if tiled:
        layout |= dict(blockxsize=width, blockysize=height)
    layout['compress'] = compress if compress in LOSSLESS else 'deflate'
    if layout['compress'] in ('deflate', 'lzw', 'zstd') and dtype.startswith('float'):
        layout['predictor'] = 3
    return layout
