"""Find near duplicates among many images by their thumbnails.

The result is that of comparing all pairs, but few are compared: a projection onto some axes makes no distance longer,
so that only pairs that are near there can be alike, and pairs of one group need no comparison.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mmseg_volo.utils.progress import ProgressBar

ALIKE = 0.05  # mean difference of thumbnails, as a share of their contrast, up to which images are near duplicates
ROUNDING = 0.25  # grey levels of difference that do not count
AXES = 24  # along which thumbnails differ most
SAMPLE = 4096  # thumbnails that determine the axes
ROWS, COLUMNS = 512, 4096  # of the block of distances in memory


def alike_groups(thumbs: Sequence[NDArray[np.float32]]) -> NDArray[np.int64]:
    """Number the groups of near duplicates, which chains of them form: (n,) integers, one for each image.

    Args:
        thumbs: float32 thumbnails of one shape.
    """
    near = _Near(np.stack([thumb.ravel() for thumb in thumbs]))
    near.join_equal()
    near.join_neighbours(np.arange(len(thumbs)))  # frames of a video
    order = np.argsort(near.coordinates[:, 0], kind='stable')
    near.join_neighbours(order)
    with ProgressBar(None, 'searching near duplicates', len(order), 'image') as bar:
        for start in range(0, len(order), ROWS):
            near.join_after(order, start)
            bar.update(min(ROWS, len(order) - start))
    return near.label


class _Near:
    """Thumbnails (n, values), and their groups so far: `label` is the first image of the group of each."""

    def __init__(self, thumbs: NDArray[np.float32]) -> None:
        self.thumbs, self.label = thumbs, np.arange(len(thumbs))
        blocks = [slice(i, i + COLUMNS) for i in range(0, len(thumbs), COLUMNS)]
        limit = np.concatenate([ROUNDING + ALIKE * thumbs[block].std(1) for block in blocks])
        self.bounds = limit.astype(np.float32) ** 2 * thumbs.shape[1]  # squared distances
        self.squares = np.concatenate([np.einsum('ij,ij->i', thumbs[block], thumbs[block]) for block in blocks])
        axes, middle = _axes(thumbs)
        self.coordinates = np.concatenate([thumbs[block] @ axes - middle @ axes for block in blocks])
        # plus the rounding of the squares, of which float32 keeps about seven digits
        self.reach = 1.001 * (self.bounds + 1e-6 * (self.squares + self.squares.max())) + 1

    def join_equal(self) -> None:
        first: dict[bytes, int] = {}
        equal = np.array([first.setdefault(thumb.tobytes(), i) for i, thumb in enumerate(self.thumbs)])
        self._join(np.arange(len(equal)), equal)

    def join_neighbours(self, order: NDArray[np.int64]) -> None:
        """Join each image with the next one if they are alike."""
        for start in range(0, len(order) - 1, COLUMNS):
            block = order[start : start + COLUMNS + 1]
            a, b = block[:-1], block[1:]
            difference = self.thumbs[a] - self.thumbs[b]
            alike = np.einsum('ij,ij->i', difference, difference) <= self._bound(a, b)
            self._join(a[alike], b[alike])

    def join_after(self, order: NDArray[np.int64], start: int) -> None:
        """Join ROWS images with those after them, in order of their coordinates on the first axis."""
        rows = order[start : start + ROWS]
        last = (self.coordinates[rows, 0] + np.sqrt(self.reach[rows])).max()
        end = np.searchsorted(self.coordinates[order, 0], last, side='right')
        for first in range(start, end, COLUMNS):
            columns = order[first : min(first + COLUMNS, end)]
            labels = self.label[rows][:, None], self.label[columns]
            if labels[0].min() == labels[0].max() == labels[1].min() == labels[1].max():
                continue
            i, j = np.nonzero((self._beyond(rows, columns) <= 0) & (labels[0] != labels[1]))
            if len(i):
                self._compare(rows[np.unique(i)], columns[np.unique(j)])

    def _beyond(self, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the excess of squared distances along the axes, (rows, columns), as one matrix product."""
        a, b = self.coordinates[rows], self.coordinates[columns]
        left = np.column_stack([-2 * a, (a**2).sum(1) - self.reach[rows], np.ones(len(a), a.dtype)])
        right = np.column_stack([b, np.ones(len(b), b.dtype), (b**2).sum(1)])
        return left @ right.T

    def _compare(self, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> None:
        distance = self.squares[rows, None] + self.squares[columns] - 2 * self.thumbs[rows] @ self.thumbs[columns].T
        i, j = np.nonzero(distance <= self._bound(rows[:, None], columns))
        self._join(rows[i], columns[j])

    def _bound(self, a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.float32]:
        return np.minimum(self.bounds[a], self.bounds[b]) + 1e-6 * (self.squares[a] + self.squares[b])

    def _join(self, a: NDArray[np.int64], b: NDArray[np.int64]) -> None:
        label = self.label
        while (apart := label[a] != label[b]).any():
            a, b = a[apart], b[apart]
            np.minimum.at(label, np.maximum(label[a], label[b]), np.minimum(label[a], label[b]))
            while (further := label[label] != label).any():
                label[further] = label[label[further]]


def _axes(thumbs: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return orthonormal axes (values, AXES) of a sample of thumbnails, the longest first, and its mean (values,)."""
    chosen = np.random.default_rng(0).permutation(len(thumbs))[:SAMPLE]
    sample = thumbs[np.sort(chosen)].astype(np.float64)
    middle = sample.mean(0)
    _, axes = np.linalg.eigh((sample - middle).T @ (sample - middle))
    return axes[:, : -AXES - 1 : -1].astype(np.float32), middle.astype(np.float32)
