"""Tally an evaluation for the report: confusion matrix, per-image scores, best and worst images."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from torch import Tensor

from mmseg_volo.evaluation.confusion import confusion_matrix, iou
from mmseg_volo.io.image import read_image
from mmseg_volo.utils.files import encode_image

MAX_SHOWN_IMAGES = 4  # best images, and as many worst ones
SIDE = 512  # pixels: limit of the longer side of stored pictures
FORMAT = 1


@dataclass(frozen=True)
class Shown:
    """One of the best or worst images, downscaled."""

    image: str  # path
    score: float
    size: tuple[int, int]  # (height, width) of the stored pictures
    truth: bytes  # PNG of class indices; ignored pixels have the index after the last class
    prediction: bytes


class EvaluationTally:
    """Count the images of an evaluation, or those of one process.

    Args:
        num_classes: number of classes.
        ignore_index: label value of pixels that are not scored.
    """

    def __init__(self, num_classes: int, ignore_index: int):
        self.num_classes, self.ignore_index = num_classes, ignore_index
        self.confusion = np.zeros((num_classes, num_classes), np.int64)  # rows: truth, columns: prediction
        self.images: list[tuple[str, float | None]] = []
        self.best: list[Shown] = []
        self.worst: list[Shown] = []

    def add(self, image: str, truth: Tensor, prediction: Tensor, matrix: np.ndarray | None = None) -> None:
        """Count an image.

        Args:
            image: its path.
            truth: class indices (H, W), on any device.
            prediction: class indices (H, W), on any device.
            matrix: their `confusion_matrix` without its last row and column, if it is known.
        """
        if matrix is None:
            matrix = confusion_matrix(truth, prediction, self.num_classes, self.ignore_index)[:-1, :-1]
        self.confusion += matrix
        occurring = matrix.sum(1) > 0
        score = float(100 * iou(matrix)[occurring].mean()) if occurring.any() else None
        self.images.append((image, score))
        if score is None:
            return
        if len(self.best) < MAX_SHOWN_IMAGES or score > self.best[-1].score or score < self.worst[-1].score:
            step = -(-max(truth.shape) // SIDE)
            masks = [mask[::step, ::step].cpu().numpy() for mask in (truth, prediction)]
            size = masks[0].shape
            masks[0] = np.where(masks[0] == self.ignore_index, -1, masks[0].astype(np.int64))
            self._keep([Shown(image, score, size, *(_index_png(mask, self.num_classes) for mask in masks))])

    def merge(self, other: EvaluationTally) -> None:
        """Add the counts of another process."""
        self.confusion += other.confusion
        self.images += other.images
        self._keep([*other.best, *other.worst])

    def _keep(self, more: Sequence[Shown]) -> None:
        key = lambda shown: (shown.score, shown.image)  # noqa: E731
        self.best = sorted({*self.best, *more}, key=key, reverse=True)[:MAX_SHOWN_IMAGES]
        self.worst = sorted({*self.worst, *more}, key=key)[:MAX_SHOWN_IMAGES]

    def record(self) -> dict[str, Any]:
        """Return the tally as plain data; reads the files of the shown images."""
        best = {shown.image for shown in self.best}
        worst = [
            shown for shown in self.worst if shown.image not in best
        ]  # of a few images the best are the worst, too
        return dict(
            format=FORMAT,
            confusion=self.confusion.tolist(),
            images=sorted(self.images),
            best=[_with_picture(shown) for shown in self.best],
            worst=[_with_picture(shown) for shown in worst],
        )


def _index_png(mask: np.ndarray, num_classes: int) -> bytes:
    wide = num_classes > 255
    indices = np.where((mask >= 0) & (mask < num_classes), mask, num_classes)
    return encode_image('.png', indices.astype(np.uint16 if wide else np.uint8))


def _with_picture(shown: Shown) -> dict[str, Any]:
    picture = None
    try:
        height, width = shown.size
        image = cv2.resize(read_image(shown.image), (width, height), interpolation=cv2.INTER_AREA)
        picture = _text(encode_image('.jpg', image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88]))
    except (OSError, ValueError, cv2.error):
        pass  # missing, or readable only by its data set: show the masks alone
    masks = dict(truth=_text(shown.truth), prediction=_text(shown.prediction))
    return dict(image=shown.image, score=shown.score, picture=picture, **masks)


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode()
