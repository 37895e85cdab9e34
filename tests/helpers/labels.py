"""Images and labels of drawn scenes, and ways to damage them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

Files = list[tuple[Path, Path]]


def files(data: Path, split: str = 'train') -> Files:
    """Images with their labels."""
    images = sorted((data / 'leftImg8bit' / split).rglob('*.png'))
    assert images
    label = lambda path: str(path).replace('leftImg8bit/', 'gtFine/').replace('_leftImg8bit', '_gtFine_labelTrainIds')  # noqa: E731
    return [(image, Path(label(image))) for image in images]


def values(label: Path) -> np.ndarray:
    return np.array(Image.open(label))


def write_value(label: Path, value: int) -> None:
    mask = values(label)
    mask[0, 0] = value
    Image.fromarray(mask).save(label)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])
