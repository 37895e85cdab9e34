"""GeoTIFFs for tests; importing this needs rasterio."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.transform import from_origin

from mmseg_volo.datasets.synthetic import scenes

UTM = dict(crs='EPSG:32633', transform=from_origin(500000, 5500000, 2.0, 2.0))


def write(path: Path, pixels: np.ndarray, **how: Any) -> Path:
    """A GeoTIFF of (C, H, W), in UTM unless another is given."""
    count, height, width = pixels.shape
    size = dict(count=count, height=height, width=width, dtype=pixels.dtype)
    with rasterio.open(path, 'w', driver='GTiff', **{**UTM, **size, **how}) as file:
        file.write(pixels)
    return path


def scene(height: int = 150, width: int = 200) -> np.ndarray:
    return scenes.scene(7, height, width)[0].transpose(2, 0, 1)
