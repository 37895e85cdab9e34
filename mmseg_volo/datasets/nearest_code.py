"""Find the nearest of some known values or colours."""

from __future__ import annotations

import numpy as np

PIECE = 1 << 22  # distances in memory at once


def as_points(codes: np.ndarray, kind: str) -> np.ndarray:
    """Convert codes, integers (n,), see `mask_codes`, to float32 (n, 1) values or (n, 3) colours."""
    if kind != 'colours':
        return codes.astype(np.float32)[:, None]
    return np.stack([codes >> 16, codes >> 8 & 255, codes & 255], 1).astype(np.float32)


def nearest_index(codes: np.ndarray, known: np.ndarray, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the index in `known` of the code nearest to each, and its distance: int64 (n,), float32 (n,)."""
    points, others = as_points(codes, kind), as_points(known, kind)
    indices, distances = np.zeros(len(codes), np.int64), np.zeros(len(codes), np.float32)
    step = max(1, PIECE // max(1, others.size))
    for start in range(0, len(codes), step):
        chunk = slice(start, start + step)
        far = np.sqrt(((points[chunk, None] - others) ** 2).sum(2))
        indices[chunk] = far.argmin(1)
        distances[chunk] = far.min(1)
    return indices, distances


def reach(known: np.ndarray, kind: str) -> float:
    """Return half of the smallest distance between two codes: codes farther than this from all of them match none."""
    points = as_points(known, kind)
    far = np.sqrt(((points[:, None] - points) ** 2).sum(2))
    return float(np.min(far, initial=np.inf, where=~np.eye(len(points), dtype=bool))) / 2
