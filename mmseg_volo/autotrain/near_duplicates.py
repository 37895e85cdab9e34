"""Near duplicates among many images, by their thumbnails.

Every pair that is alike counts, as if all were compared. Few are: a projection onto some axes makes no distance longer,
so that only what is near there is compared; and what is of one group already need not be.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mmseg_volo.utils.progress import ProgressBar

ALIKE = 0.05  # of the contrast of two images: a mean difference of their thumbnails up to this is a near duplicate
ROUNDING = 0.25  # grey levels that are no difference
AXES = 24  # along which thumbnails differ most
SAMPLE = 4096  # thumbnails that say which these are
ROWS, COLUMNS = 512, 4096  # of the distances that are in memory at once


def alike_groups(thumbs: Sequence[np.ndarray]) -> np.ndarray:
    """A number for each image, the same for near duplicates and for those that others link so: (n,) integers.

    Args:
        thumbs: float32 thumbnails of one shape.
    """
    near = _Near(np.stack([thumb.ravel() for thumb in thumbs]))
    near.join_equal()
    near.join_neighbours(np.arange(len(thumbs)))  # frames of a video
    order = np.argsort(near.places[:, 0], kind='stable')
    near.join_neighbours(order)
    with ProgressBar(None, 'looking for near duplicates', len(order), 'image') as bar:
        for start in range(0, len(order), ROWS):
            near.join_after(order, start)
            bar.update(min(ROWS, len(order) - start))
    return near.label


class _Near:
    """Thumbnails (n, values), and the groups found so far: `label` is the first image of each one's group."""

    def __init__(self, thumbs: np.ndarray):
        self.thumbs, self.label = thumbs, np.arange(len(thumbs))
        parts = [slice(i, i + COLUMNS) for i in range(0, len(thumbs), COLUMNS)]
        limit = np.concatenate([ROUNDING + ALIKE * thumbs[part].std(1) for part in parts])
        self.bounds = limit.astype(np.float32) ** 2 * thumbs.shape[1]  # squared distances
        self.squares = np.concatenate([np.einsum('ij,ij->i', thumbs[part], thumbs[part]) for part in parts])
        axes, middle = _axes(thumbs)
        self.places = np.concatenate([thumbs[part] @ axes - middle @ axes for part in parts])
        # the squares' own rounding: float32 keeps about seven digits of them
        self.reach = 1.001 * (self.bounds + 1e-6 * (self.squares + self.squares.max())) + 1

    def join_equal(self) -> None:
        first: dict[bytes, int] = {}
        found = np.array([first.setdefault(thumb.tobytes(), i) for i, thumb in enumerate(self.thumbs)])
        self._join(np.arange(len(found)), found)

    def join_neighbours(self, order: np.ndarray) -> None:
        """Joins each image with the next one, if they are alike."""
        for start in range(0, len(order) - 1, COLUMNS):
            part = order[start : start + COLUMNS + 1]
            a, b = part[:-1], part[1:]
            difference = self.thumbs[a] - self.thumbs[b]
            alike = np.einsum('ij,ij->i', difference, difference) <= self._bound(a, b)
            self._join(a[alike], b[alike])

    def join_after(self, order: np.ndarray, start: int) -> None:
        """Joins ROWS images with those after them, in the order of their places on the first axis."""
        rows = order[start : start + ROWS]
        last = (self.places[rows, 0] + np.sqrt(self.reach[rows])).max()
        end = np.searchsorted(self.places[order, 0], last, side='right')
        for first in range(start, end, COLUMNS):
            columns = order[first : min(first + COLUMNS, end)]
            labels = self.label[rows][:, None], self.label[columns]
            if labels[0].min() == labels[0].max() == labels[1].min() == labels[1].max():
                continue
            i, j = np.nonzero((self._beyond(rows, columns) <= 0) & (labels[0] != labels[1]))
            if len(i):
                self._compare(rows[np.unique(i)], columns[np.unique(j)])

    def _beyond(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """By how much squared distances along the axes are too long, (rows, columns), by one product of matrices."""
        a, b = self.places[rows], self.places[columns]
        left = np.column_stack([-2 * a, (a**2).sum(1) - self.reach[rows], np.ones(len(a), a.dtype)])
        right = np.column_stack([b, np.ones(len(b), b.dtype), (b**2).sum(1)])
        return left @ right.T

    def _compare(self, rows: np.ndarray, columns: np.ndarray) -> None:
        distance = self.squares[rows, None] + self.squares[columns] - 2 * self.thumbs[rows] @ self.thumbs[columns].T
        i, j = np.nonzero(distance <= self._bound(rows[:, None], columns))
        self._join(rows[i], columns[j])

    def _bound(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.minimum(self.bounds[a], self.bounds[b]) + 1e-6 * (self.squares[a] + self.squares[b])

    def _join(self, a: np.ndarray, b: np.ndarray) -> None:
        label = self.label
        while (apart := label[a] != label[b]).any():
            a, b = a[apart], b[apart]
            np.minimum.at(label, np.maximum(label[a], label[b]), np.minimum(label[a], label[b]))
            while (further := label[label] != label).any():
                label[further] = label[label[further]]


def _axes(thumbs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Orthonormal axes (values, AXES), the longest first, and the middle (values,) of a sample of thumbnails."""
    chosen = np.random.default_rng(0).permutation(len(thumbs))[:SAMPLE]
    sample = thumbs[np.sort(chosen)].astype(np.float64)
    middle = sample.mean(0)
    _, axes = np.linalg.eigh((sample - middle).T @ (sample - middle))
    return axes[:, : -AXES - 1 : -1].astype(np.float32), middle.astype(np.float32)
