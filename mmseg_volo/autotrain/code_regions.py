"""Where the codes of a mask lie: in areas, or only along the borders of others."""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np

from mmseg_volo.datasets.mask_codes import GONE, count_codes

THIN = 0.05  # of a code's pixels: fewer inside its areas, and it has none
NARROW, WIDE = 2, 8  # pixels about one that is inside an area: at least and at most
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
        Code -> pixels inside its areas, about which a square of 5 pixels, or of a hundredth of the shorter side up to
        17, holds nothing else; and code -> pixels between two others, of the codes that have no such areas.
    """
    ranks, rank = _ranks(codes, counts)
    radius = min(max(NARROW, min(codes.shape) // 200), WIDE)
    window = np.ones((2 * radius + 1, 2 * radius + 1), np.uint8)
    cores = count_codes(codes[cv2.erode(ranks, window) == cv2.dilate(ranks, window)])
    thin = [code for code, n in counts.items() if cores.get(code, 0) <= THIN * n and code != GONE]
    if len(thin) <= FEW:
        return cores, {code: _between_others(ranks, rank[code], window) for code in thin}
    pixels = codes.astype(np.float64)[..., None] if colours is None else colours
    found = count_codes(codes[_between_neighbours(pixels)])
    return cores, {code: found.get(code, 0) for code in thin}


def _ranks(codes: np.ndarray, counts: Mapping[int, int]) -> tuple[np.ndarray, dict[int, int]]:
    """Codes as small numbers, with which OpenCV is quick, and the number of each code."""
    known = np.array(sorted(counts), np.int64)
    rank = {code: i for i, code in enumerate(known.tolist())}
    dtype = next((small for small in (np.uint8, np.uint16) if len(known) <= np.iinfo(small).max), np.float64)
    if known[0] < 0 or known[-1] >= 1 << 24:
        return np.searchsorted(known, codes).astype(dtype), rank
    table = np.zeros(known[-1] + 1, dtype)
    table[known] = np.arange(len(known))
    return table[codes], rank


def _between_others(ranks: np.ndarray, rank: int, window: np.ndarray) -> int:
    """Pixels of a code in whose neighbourhood are two others."""
    own = ranks == rank
    most = ranks.dtype.type(np.iinfo(ranks.dtype).max if ranks.dtype.kind == 'u' else np.inf)
    lowest = cv2.erode(np.where(own, most, ranks), window)
    highest = cv2.dilate(np.where(own, ranks.dtype.type(0), ranks), window)
    return int((own & (lowest < highest)).sum())


def _between_neighbours(pixels: np.ndarray) -> np.ndarray:
    """Where a pixel (H, W, C) lies between its neighbours in a channel: bool (H, W)."""
    lowest, highest = (f(pixels, np.ones((3, 3), np.uint8)).reshape(pixels.shape) for f in (cv2.erode, cv2.dilate))
    return ((lowest < pixels) & (pixels < highest)).any(2)
