"""Folders of small pictures: rectangles on grey, and masks that say where."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

SIDE = 64
COLOURS = np.array([[0, 0, 0], [200, 30, 30], [30, 30, 200]], np.uint8)  # background and two classes
Write = Callable[[Path, np.ndarray], None]


def indices(number: int) -> np.ndarray:
    """Class indices (SIDE, SIDE) of picture `number`: two rectangles at places of its own."""
    rng = np.random.default_rng(number)
    mask = np.zeros((SIDE, SIDE), np.uint8)
    for index in (1, 2):
        x, y = rng.integers(0, SIDE // 2, 2)
        mask[y : y + 24, x : x + 24] = index
    return mask


def picture(mask: np.ndarray) -> np.ndarray:
    """What is seen of a mask, RGB."""
    noise = np.random.default_rng(int(mask.sum())).integers(0, 40, (*mask.shape, 3))
    return (COLOURS[np.minimum(mask, 2)] * 0.7 + noise).astype(np.uint8)


def as_index(path: Path, mask: np.ndarray) -> None:
    Image.fromarray(mask).save(path)


def as_colours(path: Path, mask: np.ndarray) -> None:
    Image.fromarray(COLOURS[mask]).save(path)


def as_palette(path: Path, mask: np.ndarray) -> None:
    image = Image.fromarray(mask, 'P')
    image.putpalette(COLOURS.ravel().tolist())
    image.save(path)


def as_black_and_white(path: Path, mask: np.ndarray) -> None:
    Image.fromarray((mask > 0).astype(np.uint8) * 255).save(path)


def as_sixteen_bits(path: Path, mask: np.ndarray) -> None:
    """Values from 0 to 299, every one of them."""
    wide = mask.astype(np.uint16)
    wide[:10, :30] = np.arange(300).reshape(10, 30)
    cv2.imwrite(str(path), wide)


def rgb(path: Path, image: np.ndarray) -> None:
    Image.fromarray(image).save(path)


def five_channels(path: Path, image: np.ndarray) -> None:
    np.save(path, np.concatenate([image, image[..., :2]], 2).astype(np.float32) * 100)


def deep(path: Path, image: np.ndarray) -> None:
    cv2.imwrite(str(path), image[..., ::-1].astype(np.uint16) * 16)


def write(root: Path, count: int, mask: Write = as_index, image: Write = rgb, suffix: str = '.png') -> Path:
    """`images/` and `masks/` with `count` pictures."""
    for part in ('images', 'masks'):
        (root / part).mkdir(parents=True, exist_ok=True)
    for number in range(count):
        found = indices(number)
        image(root / 'images' / f'{number:02}{suffix}', picture(found))
        mask(root / 'masks' / f'{number:02}.png', found)
    return root
