"""Draw a data set in the most common layout: images and masks in two folders, with the same names.

python examples/shapes.py data/shapes

FOLDER/images/{train,val}/0001.jpg are shapes on noise, FOLDER/masks/{train,val}/0001.png hold class indices: 0 is the
background, 1 the first kind of shape, and so on.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

SIDE = 64  # pixels
# corners of each kind, and its base colour (BGR), which varies a little from shape to shape
KINDS = {'disc': (32, (60, 60, 200)), 'square': (4, (200, 120, 60)), 'triangle': (3, (60, 200, 120))}
COUNTS = {'train': 48, 'val': 8}


def draw(seed: int, kinds: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Draw one image, uint8 BGR (SIDE, SIDE, 3), and its mask, uint8 (SIDE, SIDE)."""
    rng = np.random.default_rng(seed)
    image = rng.integers(90, 160, (SIDE, SIDE, 3), np.uint8)
    mask = np.zeros((SIDE, SIDE), np.uint8)
    for label in rng.integers(1, len(kinds) + 1, 4).tolist():
        corners, colour = KINDS[kinds[label - 1]]
        angles = np.pi * (2 * np.arange(corners) / corners + rng.uniform(0, 0.3))
        outline = rng.integers(8, SIDE - 8, 2) + rng.integers(7, 15) * np.stack([np.cos(angles), np.sin(angles)], 1)
        colour = (colour + rng.integers(-40, 41, 3)).tolist()
        for canvas, value in ((image, colour), (mask, label)):
            cv2.fillPoly(canvas, [outline.round().astype(np.int32)], value)
    return image, mask


def write(folder: Path, kinds: Sequence[str] = ('disc', 'square')) -> Path:
    """Write the whole set."""
    for i, (split, count) in enumerate(COUNTS.items()):
        for kind in ('images', 'masks'):
            (folder / kind / split).mkdir(parents=True, exist_ok=True)
        for j in range(count):
            image, mask = draw(1000 * i + j, kinds)
            cv2.imwrite(str(folder / 'images' / split / f'{j:04}.jpg'), image)
            cv2.imwrite(str(folder / 'masks' / split / f'{j:04}.png'), mask)
    return folder


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('folder', type=Path, help='created if missing')
    print(f'images and masks are in {write(parser.parse_args().folder)}')
