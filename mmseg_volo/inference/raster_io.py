"""Writes GeoTIFFs row by row."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmseg_volo.io.raster_reader import rasterio_module
from mmseg_volo.utils.files import AtomicFile

CACHE = 128  # MB of blocks that GDAL caches; a row of 512-pixel blocks of 20,000 RGB pixels takes 31 MB
ROWS = 1024  # higher strips or blocks are not copied, nor those of which a row takes more than ROW_BYTES
ROW_BYTES = 256 << 20
LOSSLESS = ('deflate', 'lzw', 'zstd', 'lzma', 'packbits')
SPARE = 1 << 20  # bytes: a disk with less free space counts as full


class RasterFile:
    """Writes a GeoTIFF from the top, with another's size, georeference and blocks; the file appears only when complete.

    Args:
        path: of the new file.
        like: the other raster, open.
        count: number of bands.
        dtype: of the pixels.
        nodata: value of pixels without a result; None if there are none.
        names: of the bands.
        palette: RGB, one per class, for viewers; only for uint8.
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
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        profile = _layout(like, count, dtype)
        where = dict(crs=like.crs, transform=like.transform, width=like.width, height=like.height)
        points, points_crs = like.gcps
        if points:
            where = dict(gcps=points, crs=points_crs, width=like.width, height=like.height)
        rasterio = rasterio_module()
        assert rasterio is not None  # it opened `like`
        self._new = AtomicFile(path)
        self.scratch = self._new.scratch
        try:
            self.file = rasterio.open(
                self.scratch, 'w', driver='GTiff', count=count, dtype=dtype, nodata=nodata, **where, **profile
            )
        except BaseException:
            self._new.close()
            raise
        if like.rpcs:
            self.file.rpcs = like.rpcs
        if names:
            self.file.descriptions = tuple(names)
        if len(palette) and dtype == 'uint8':
            self.file.write_colormap(1, {i: (*map(int, c), 255) for i, c in enumerate(palette[:256])})
        self._step = profile['blockysize']
        self._top = self._held = 0
        self._rows = np.empty((count, self._step, like.width), dtype)

    def write(self, rows: NDArray[Any]) -> None:
        """Append rows (count, n, W); they reach the file when a row of blocks is full."""
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
            self._check_space()
        self._top, self._held = self._top + self._held, 0

    def finish(self) -> Path:
        """Write the remaining rows and return the temporary path, which is valid until `with` ends."""
        if self._held:
            self._flush()
        if not self.file.closed:
            self.file.close()
            self._check_space()
        return self.scratch

    def _check_space(self) -> None:
        """Raise an OSError if the disk is full: GDAL reports another error, and none when it closes a file."""
        if shutil.disk_usage(self.scratch.parent).free < SPARE:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))

    def __enter__(self) -> RasterFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.finish()
                self._new.keep()
            else:
                self.file.close()
        finally:
            self._new.close()


def _layout(like: Any, count: int, dtype: str) -> dict[str, Any]:
    """Choose rasterio's options for blocks and compression after another raster's."""
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
