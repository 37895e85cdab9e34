"""Which of some values or colours is nearest to others."""

from __future__ import annotations

import numpy as np

PIECE = 1 << 22  # distances that are in memory at once


def as_points(codes: np.ndarray, kind: str) -> np.ndarray:
    """Integers (n,), see `masks`, as float32 (n, 1) values, or (n, 3) colours."""
    if kind != 'colours':
        return codes.astype(np.float32)[:, None]
    return np.stack([codes >> 16, codes >> 8 & 255, codes & 255], 1).astype(np.float32)


def nearest_index(codes: np.ndarray, known: np.ndarray, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """The place in `known` of the code that is nearest to each, and how far it is: int64 (n,), float32 (n,)."""
    points, others = as_points(codes, kind), as_points(known, kind)
    places, distances = np.zeros(len(codes), np.int64), np.zeros(len(codes), np.float32)
    step = max(1, PIECE // max(1, others.size))
    for start in range(0, len(codes), step):
        part = slice(start, start + step)
        far = np.sqrt(((points[part, None] - others) ** 2).sum(2))
        places[part] = far.argmin(1)
        distances[part] = far.min(1)
    return places, distances


def reach(known: np.ndarray, kind: str) -> float:
    """Half of the smallest distance between two codes: what is farther than this from all of them is none of them."""
    points = as_points(known, kind)
    far = np.sqrt(((points[:, None] - points) ** 2).sum(2))
    return float(np.min(far, initial=np.inf, where=~np.eye(len(points), dtype=bool))) / 2
