"""Draw masks: colours, overlays, legends. All pictures are uint8 RGB of shape (H, W, 3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np

IGNORED = (0, 0, 0)
SCALES = (0.35, 4.0)  # smallest and largest font scale of a legend


def colour_mask(mask: np.ndarray, palette: Sequence[Sequence[int]]) -> np.ndarray:
    """Colour class indices (H, W) as a picture (H, W, 3); indices beyond the palette, e.g. 255 for ignored, are black.

    Args:
        palette: one RGB colour per class.
    """
    table = np.array([*palette, IGNORED], dtype=np.uint8)
    return table[np.minimum(mask, np.uint16(len(palette)))]


def overlay(image: np.ndarray, mask: np.ndarray, palette: Sequence[Sequence[int]], opacity: float = 0.5) -> np.ndarray:
    """Blend the colours of a mask (H, W) with its image (H, W, 3).

    Args:
        palette: one RGB colour per class.
        opacity: 0 shows the image alone, 1 the mask alone.
    """
    return cv2.addWeighted(image, 1 - opacity, colour_mask(mask, palette), opacity, 0)


def with_legend(
    picture: np.ndarray, mask: np.ndarray, classes: Sequence[str], palette: Sequence[Sequence[int]]
) -> np.ndarray:
    """Append a strip below a picture that lists the classes in its mask, with their share of the pixels.

    Returns:
        (H + strip, W, 3); text and boxes scale with the picture, see `legend`.
    """
    counts = np.bincount(mask.ravel(), minlength=len(classes))[: len(classes)]
    entries = {i: f'{classes[i]} {100 * counts[i] / counts.sum():.1f}%' for i in np.argsort(-counts) if counts[i]}
    return np.concatenate([picture, legend(entries, palette, picture.shape[1], len(picture))])


def legend(entries: Mapping[int, str], palette: Sequence[Sequence[int]], width: int, height: int) -> np.ndarray:
    """Draw a white strip (n, width, 3) with a box in the class's colour before each text.

    Args:
        entries: class index -> text.
        palette: one RGB colour per class.
        width, height: of the picture above it; below a flat picture, the text is small.
    """
    scale = min(max(min(width, 4 * height) / 1600, SCALES[0]), SCALES[1])
    line = round(30 * scale) + 4
    boxes, x, y = [], line // 3, 0
    for i, text in entries.items():
        needed = line + cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)[0][0] + line // 2
        if x + needed > width and x > line:
            x, y = line // 3, y + line
        boxes.append((i, text, x, y))
        x += needed
    strip = np.full((y + line + line // 3, width, 3), 255, np.uint8)
    for i, text, x, y in boxes:
        top = y + line // 3
        cv2.rectangle(strip, (x, top), (x + line * 2 // 3, top + line * 2 // 3), [int(c) for c in palette[i]], -1)
        origin = (x + line, top + line * 2 // 3 - line // 8)
        cv2.putText(strip, text, origin, cv2.FONT_HERSHEY_SIMPLEX, scale, (20, 20, 20), 1, cv2.LINE_AA)
    return strip
