"""Measure where the codes of a mask lie: in areas, or only along the borders of others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mmseg_volo.datasets.mask_codes import GONE, count_codes

THIN = 0.05  # share of a code's pixels inside its areas, up to which it counts as having none
NARROW, WIDE = 2, 8  # radius in pixels of the uniform square around a pixel inside an area: least and most
FEW = 8  # codes of a mask, up to which each is measured by itself


def areas(
    codes: NDArray[Any], colours: NDArray[np.uint8] | None, counts: Mapping[int, int]
) -> tuple[dict[int, int], dict[int, int]]:
    """Count the pixels of each code that lie inside areas, and between other codes.

    Args:
        codes: integers (H, W).
        colours: uint8 RGB (H, W, 3), of a mask of colours.
        counts: code -> pixels.

    Returns:
        Code -> pixels inside its areas, around which a square of 5 pixels, or of a hundredth of the shorter side up to
        17, holds no other code; and code -> pixels between two others, for codes without such areas.
    """
    ranks, rank = _ranks(codes, counts)
    radius = min(max(NARROW, min(codes.shape) // 200), WIDE)
    window = np.ones((2 * radius + 1, 2 * radius + 1), np.uint8)
    cores = count_codes(codes[cv2.erode(ranks, window) == cv2.dilate(ranks, window)])
    thin = [code for code, n in counts.items() if cores.get(code, 0) <= THIN * n and code != GONE]
    if len(thin) <= FEW:
        return cores, {code: _between_others(ranks, rank[code], window) for code in thin}
    pixels = codes.astype(np.float64)[..., None] if colours is None else colours
    borders = count_codes(codes[_between_neighbours(pixels)])
    return cores, {code: borders.get(code, 0) for code in thin}


def _ranks(codes: NDArray[Any], counts: Mapping[int, int]) -> tuple[NDArray[Any], dict[int, int]]:
    """Number the codes from 0 in a small type, which OpenCV processes fast, and return the number of each."""
    known = np.array(sorted(counts), np.int64)
    rank = {code: i for i, code in enumerate(known.tolist())}
    dtype = next((small for small in (np.uint8, np.uint16) if len(known) <= np.iinfo(small).max), np.float64)
    if known[0] < 0 or known[-1] >= 1 << 24:
        return np.searchsorted(known, codes).astype(dtype), rank
    table = np.zeros(known[-1] + 1, dtype)
    table[known] = np.arange(len(known))
    return table[codes], rank


def _between_others(ranks: NDArray[Any], rank: int, window: NDArray[np.uint8]) -> int:
    """Count the pixels of a code that have two others in their neighbourhood."""
    own = ranks == rank
    most = ranks.dtype.type(np.iinfo(ranks.dtype).max if ranks.dtype.kind == 'u' else np.inf)
    lowest = cv2.erode(np.where(own, most, ranks), window)
    highest = cv2.dilate(np.where(own, ranks.dtype.type(0), ranks), window)
    return int((own & (lowest < highest)).sum())


def _between_neighbours(pixels: NDArray[Any]) -> NDArray[np.bool_]:
    """Mark pixels (H, W, C) that lie between their neighbours in a channel: bool (H, W)."""
    lowest, highest = (f(pixels, np.ones((3, 3), np.uint8)).reshape(pixels.shape) for f in (cv2.erode, cv2.dilate))
    return np.any((lowest < pixels) & (pixels < highest), axis=2)
