"""Georeferenced pictures; importing this needs rasterio."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmseg_volo.datasets.synthetic import scenes

rasterio = pytest.importorskip('rasterio')
RGB = scenes.scene(3, 48, 64)[0]
GREY = RGB[..., 0]
GREY3 = np.stack([GREY] * 3, -1)
UTM = dict(crs='EPSG:32633', transform=rasterio.Affine(10, 0, 4e5, 0, -10, 5e6))


def tiff(path: Path, pixels: np.ndarray, table: dict | None = None, driver: str = 'GTiff', **how: Any) -> Path:
    pixels = pixels if pixels.ndim == 3 else pixels[..., None]
    height, width, count = pixels.shape
    size = dict(height=height, width=width, count=count, dtype=pixels.dtype)
    with rasterio.open(path, 'w', driver=driver, **size, **how) as file:
        if table:
            file.write_colormap(1, table)
        file.write(pixels.transpose(2, 0, 1))
    return path


def mask_of(path: str | Path) -> np.ndarray:
    with rasterio.open(path) as file:
        return file.read(1)
