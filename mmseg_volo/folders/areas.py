"""Where the codes of a mask lie: in areas, or only along the borders of others."""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np

from mmseg_volo.folders.masks import GONE, count

THIN = 0.05  # of a code's pixels: fewer inside its areas, and it has none
FEW = 8  # codes of a mask that are looked at one by one


def areas(
    codes: np.ndarray, colours: np.ndarray | None, counts: Mapping[int, int]
) -> tuple[dict[int, int], dict[int, int]]:
    """How a mask's codes lie.

    Args:
        codes: integers (H, W).
        colours: uint8 RGB (H, W, 3), of a mask that has some.
        counts: code -> pixels.

    Returns:
        Code -> pixels inside its areas, about which a square of 5 pixels, or of a hundredth of the shorter side,
        holds nothing else; and code -> pixels between two others, of the codes that have no such areas.
    """
    plain = codes if codes.dtype in (np.uint8, np.uint16) else codes.astype(np.float64)
    radius = max(2, min(codes.shape) // 200)
    window = np.ones((2 * radius + 1, 2 * radius + 1), np.uint8)
    cores = count(codes[cv2.erode(plain, window) == cv2.dilate(plain, window)])
    thin = [code for code, n in counts.items() if cores.get(code, 0) <= THIN * n and code != GONE]
    if len(thin) <= FEW:
        return cores, {code: _between_others(plain, code, window) for code in thin}
    found = count(codes[_between_neighbours(plain[..., None] if colours is None else colours)])
    return cores, {code: found.get(code, 0) for code in thin}


def _between_others(plain: np.ndarray, code: int, window: np.ndarray) -> int:
    """Pixels of a code in whose neighbourhood are two others."""
    own = plain == code
    least, most = (0, np.iinfo(plain.dtype).max) if plain.dtype.kind == 'u' else (-np.inf, np.inf)
    lowest = cv2.erode(np.where(own, plain.dtype.type(most), plain), window)
    highest = cv2.dilate(np.where(own, plain.dtype.type(least), plain), window)
    return int((own & (lowest < highest)).sum())


def _between_neighbours(pixels: np.ndarray) -> np.ndarray:
    """Where a pixel (H, W, C) lies between its neighbours in a channel: bool (H, W)."""
    lowest, highest = (f(pixels, np.ones((3, 3), np.uint8)).reshape(pixels.shape) for f in (cv2.erode, cv2.dilate))
    return ((lowest < pixels) & (pixels < highest)).any(2)
