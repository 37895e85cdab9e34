"""Decode the pixels of a raster (palettes, fewer bits than their type, nodata), and read large rasters by windows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from mmseg_volo.errors import UsageError
from mmseg_volo.io.raster_reader import is_georeferenced
from mmseg_volo.io.steps import MULTI_BAND_STEPS
from mmseg_volo.io.value_range import LOGGER, NODATA_RGB, Tell, Values, check_range, to_bytes
from mmseg_volo.utils.progress import ProgressBar

if TYPE_CHECKING:
    from rasterio import DatasetReader

OWN_VALUES = 'the network takes the values of files as they are: leave the value range out'
PIECE = 64 << 20  # bytes that are checked at once
Window = tuple[tuple[int, int], tuple[int, int]]  # (top, bottom), (left, right)


def colours_of(raster: DatasetReader) -> np.ndarray | None:
    """Return the palette of a raster of one band, uint8 RGB (n, 3); None if it has none."""
    kinds = {kind.name for kind in raster.colorinterp} - {'alpha'}
    if kinds != {'palette'} or raster.dtypes[0] not in ('uint8', 'uint16'):
        return None
    table = raster.colormap(1)
    colours = np.zeros((1 << (8 if raster.dtypes[0] == 'uint8' else 16), 3), np.uint8)
    colours[[*table]] = [entry[:3] for entry in table.values()]
    return colours


def native(raster: DatasetReader, bands: Sequence[int] | None = None, window: Window | None = None) -> np.ndarray:
    """Read the pixels (C, n, m) of bands, by default of all; palettes become colours, and white is the largest value.

    The bands of a palette are red, green and blue.
    """
    colours = colours_of(raster)
    pixels: np.ndarray
    if colours is not None:
        pixels = colours[raster.read(1, window=window)].transpose(2, 0, 1)
        return pixels if bands is None else pixels[[band - 1 for band in bands]]
    pixels = raster.read(None if bands is None else list(bands), window=window)
    if raster.tags(ns='IMAGE_STRUCTURE').get('MINISWHITE') == 'YES' and pixels.dtype.kind == 'u':
        pixels = ((1 << _bits(raster)) - 1 - pixels).astype(pixels.dtype)
    return pixels


def widened(raster: DatasetReader, pixels: np.ndarray) -> np.ndarray:
    """Scale values that the file declares to have 2, 4 or 12 bits to the whole range of their type."""
    bits = _bits(raster)
    if pixels.dtype.kind != 'u' or bits >= 8 * pixels.dtype.itemsize or colours_of(raster) is not None:
        return pixels
    return (pixels.astype(np.uint64) * np.iinfo(pixels.dtype).max // ((1 << bits) - 1)).astype(pixels.dtype)


def _bits(raster: DatasetReader) -> int:
    own = raster.tags(1, ns='IMAGE_STRUCTURE').get('NBITS')
    return int(own) if own else 8 * np.dtype(raster.dtypes[0]).itemsize


def missing(
    raster: DatasetReader, bands: Sequence[int] | None, pixels: np.ndarray, window: Window | None = None
) -> np.ndarray | None:
    """Return where a raster has no data: by its nodata value, its mask, alpha of 0 unless alpha is one of the bands,
    or values that are NaN or infinite.

    Args:
        bands, window: see `native`.
        pixels: result of `native`.

    Returns:
        bool of the shape of `pixels`; None if no pixel is missing. A uint8 pixel is missing only if all its bands are,
        as a dark one may hold the nodata value 0 in one band.
    """
    where: np.ndarray | None = None
    if is_masked(raster, bands):
        if pixels.dtype == np.uint8:
            where = np.broadcast_to(raster.dataset_mask(window=window) == 0, pixels.shape)
        else:
            where = raster.read_masks([*raster.indexes] if bands is None else list(bands), window=window) == 0
    if pixels.dtype.kind == 'f':
        unknown = ~np.isfinite(pixels)
        where = unknown if where is None else where | unknown
    return where if where is not None and where.any() else None


def is_masked(raster: DatasetReader, bands: Sequence[int] | None = None) -> bool:
    """Whether a raster marks missing pixels by a nodata value, a mask or alpha. Alpha counts in a georeferenced raster,
    unless it is a band that the network takes; in pictures it is dropped."""
    flags = {flag.name for flags in raster.mask_flag_enums for flag in flags}
    if 'alpha' in flags:
        kinds = [kind.name for kind in raster.colorinterp]
        taken = [*raster.indexes] if bands is None else bands
        return is_georeferenced(raster) and not ('alpha' in kinds and kinds.index('alpha') + 1 in taken)
    return bool(flags - {'all_valid'})


class RasterPixels:
    """Lazy stand-in for the tensor (C, H, W) of a raster: a slice is read when it is indexed.

    Args:
        raster: an open rasterio dataset.
        loading: the first step of the model's test pipeline. With `LoadMultiBandImage`, slices are float32,
            normalised, in the order of the bands; otherwise they are uint8 BGR, by the rules of `value_range`.
        bands, value_range: see `inference.options`.
        device: of the slices.
        name: for messages.
        tell: see `check_range`.

    Raises:
        UsageError: `bands` are needed, do not exist, or have another type than in training.
    """

    def __init__(
        self,
        raster: DatasetReader,
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
        palette = colours_of(raster) is not None
        if loading is not None and loading['type'] in MULTI_BAND_STEPS:
            if value_range is not None:
                raise UsageError(OWN_VALUES)
            self.normal = [np.array(loading[key], np.float32)[:, None, None] for key in ('mean', 'std')]
            channels, wanted = len(self.normal[0]), loading.get('dtype')
            if wanted not in (None, 'uint8' if palette else dtype):
                raise UsageError(f'{self.name} is of {dtype}, expected {wanted}, as in training')
            if bands is None and raster.count == channels:
                bands = range(1, channels + 1)
        self.bands = _bands(raster, channels, bands, self.name)
        self.shape = torch.Size((channels, raster.height, raster.width))

    @property
    def masked(self) -> bool:
        """Whether results mark missing pixels, as those of georeferenced files do."""
        if not is_georeferenced(self.raster):
            return False
        return is_masked(self.raster, self.bands) or np.dtype(self.raster.dtypes[0]).kind == 'f'

    def valid(self, window: Window | None = None) -> np.ndarray:
        """Return bool (n, m): where at least one of the bands has data."""
        known: np.ndarray
        if np.dtype(self.raster.dtypes[0]).kind == 'f':
            gone = missing(self.raster, self.bands, native(self.raster, self.bands, window), window)
            if gone is not None:
                known = ~np.all(gone, axis=0)
                return known
        if is_masked(self.raster, self.bands):
            known = self.raster.dataset_mask(window=window) > 0
            return known
        (top, bottom), (left, right) = window or ((0, self.shape[1]), (0, self.shape[2]))
        return np.ones((bottom - top, right - left), bool)

    def __getitem__(self, index: tuple[slice, slice, slice]) -> Tensor:
        _, rows, columns = index
        top, bottom, _ = rows.indices(self.shape[1])
        left, right, _ = columns.indices(self.shape[2])
        pixels = self.read(((top, bottom), (left, right)))
        if self.normal is None:
            pixels = np.ascontiguousarray(pixels[::-1])  # BGR
        return torch.from_numpy(pixels).to(self.device)

    def read(self, window: Window | None = None) -> np.ndarray:
        """Read (C, n, m) of a window or of the whole: uint8 RGB, or normalised float32; the mean where no data."""
        pixels = native(self.raster, self.bands, window)
        gone = missing(self.raster, self.bands, pixels, window)
        if self.normal is not None:
            mean, std = self.normal
            pixels = np.asarray(np.nan_to_num((pixels.astype(np.float32) - mean) / std))
            return pixels if gone is None else np.where(gone, np.float32(0), pixels)
        pixels = to_bytes(pixels if self.value_range else widened(self.raster, pixels), self.value_range)
        colours = np.array(NODATA_RGB, np.uint8)[:, None, None]
        if gone is not None:
            return np.where(gone, colours, pixels)  # grey becomes three channels
        return pixels if len(pixels) == 3 else np.repeat(pixels, 3, 0)

    def rgb(self) -> np.ndarray:
        """Read the whole raster as uint8 RGB (H, W, 3), after `check`."""
        self.check()
        return np.ascontiguousarray(self.read().transpose(1, 2, 0))

    def picture(self, window: Window) -> np.ndarray:
        """Read a window as uint8 RGB (3, n, m) for display; of multi-band rasters the first bands, scaled to two
        standard deviations about their mean."""
        pixels = self.read(window)
        if self.normal is not None:
            pixels = pixels[: 3 if len(pixels) >= 3 else 1]
            pixels = np.rint((pixels / 4 + 0.5).clip(0, 1) * 255).astype(np.uint8)
        return pixels if len(pixels) == 3 else np.repeat(pixels, 3, 0)

    def check(self) -> None:
        """Check all values against the rules of `value_range`, once, before anything is predicted.

        Raises:
            UsageError: see `check_range`.
        """
        dtype = np.dtype(self.raster.dtypes[0])
        checked, self._checked = self._checked, True
        if (
            checked
            or self.normal is not None
            or self.value_range is not None
            or dtype == np.uint8
            or colours_of(self.raster) is not None
        ):
            return
        values = Values(dtype)
        if dtype.kind not in 'uif':
            check_range(values, self.name)
        (_, height, width), block = self.shape, self.raster.block_shapes[0][0]
        step = max(PIECE // (width * dtype.itemsize * len(self.bands) * block), 1) * block
        with ProgressBar(None, f'checking the values of {Path(self.name).name}', height, 'row', leave=False) as bar:
            for top in range(0, height, step):
                window = ((top, min(top + step, height)), (0, width))
                pixels = native(self.raster, self.bands, window)
                gone = missing(self.raster, self.bands, pixels, window)
                values.add(widened(self.raster, pixels if gone is None else pixels[~gone]))
                bar.update(window[0][1] - top)
        if values.low <= values.high:
            check_range(values, self.name, self.tell)


def _bands(raster: DatasetReader, channels: int, bands: Sequence[int] | None, name: str) -> list[int]:
    kinds = [kind.name for kind in raster.colorinterp]
    if colours_of(raster) is not None:
        kinds = ['red', 'green', 'blue']
    opaque = [i + 1 for i, kind in enumerate(kinds) if kind != 'alpha']
    if bands is not None:
        if max(bands) > len(kinds) or len(bands) not in (1, channels):
            raise UsageError(
                f'{name}: --bands {",".join(map(str, bands))}: expected {channels} of its {len(kinds)} bands, or one'
            )
        return list(bands)
    if channels == 3 and {'red', 'green', 'blue'} <= set(kinds):
        return [kinds.index(kind) + 1 for kind in ('red', 'green', 'blue')]
    if len(opaque) in (1, channels):
        return opaque
    raise UsageError(
        f'{name} has {raster.count} bands ({", ".join(kinds)}) and the network takes {channels}: choose them with '
        f'--bands, e.g. --bands {",".join(map(str, range(1, channels + 1)))} (in Python bands=)'
    )
