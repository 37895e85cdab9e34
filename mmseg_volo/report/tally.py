"""What an evaluation keeps for the report: who was taken for whom, a score per image, the best and the worst images."""

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
SIDE = 512  # pixels: the longer side of the pictures that are kept, at most
FORMAT = 1


@dataclass(frozen=True)
class Shown:
    """One of the best or worst images, made small."""

    image: str  # path
    score: float
    size: tuple[int, int]  # (height, width) of the pictures kept
    truth: bytes  # PNG of class indices; what is not scored has the index behind the last class
    prediction: bytes


class EvaluationTally:
    """Counts the images of an evaluation, or of one process's part of it.

    Args:
        num_classes: how many classes there are.
        ignore_index: label value of pixels that are not scored.
    """

    def __init__(self, num_classes: int, ignore_index: int):
        self.num_classes, self.ignore_index = num_classes, ignore_index
        self.confusion = np.zeros((num_classes, num_classes), np.int64)  # rows: truth, columns: prediction
        self.images: list[tuple[str, float | None]] = []
        self.best: list[Shown] = []
        self.worst: list[Shown] = []

    def add(self, image: str, truth: Tensor, prediction: Tensor, matrix: np.ndarray | None = None) -> None:
        """Counts an image.

        Args:
            image: its path.
            truth: class indices (H, W), on any device.
            prediction: class indices (H, W), on any device.
            matrix: `confusion_matrix` of them without what is no class, where it is known.
        """
        if matrix is None:
            matrix = confusion_matrix(truth, prediction, self.num_classes, self.ignore_index)[:-1, :-1]
        self.confusion += matrix
        found = matrix.sum(1) > 0
        score = float(100 * iou(matrix)[found].mean()) if found.any() else None
        self.images.append((image, score))
        if score is None:
            return
        if len(self.best) < MAX_SHOWN_IMAGES or score > self.best[-1].score or score < self.worst[-1].score:
            step = -(-max(truth.shape) // SIDE)
            masks = [mask[::step, ::step].cpu().numpy() for mask in (truth, prediction)]
            size = masks[0].shape
            self._keep([Shown(image, score, size, *(_index_png(mask, self.num_classes) for mask in masks))])

    def merge(self, other: EvaluationTally) -> None:
        """Adds what another process has counted."""
        self.confusion += other.confusion
        self.images += other.images
        self._keep([*other.best, *other.worst])

    def _keep(self, more: Sequence[Shown]) -> None:
        key = lambda shown: (shown.score, shown.image)  # noqa: E731
        self.best = sorted({*self.best, *more}, key=key, reverse=True)[:MAX_SHOWN_IMAGES]
        self.worst = sorted({*self.worst, *more}, key=key)[:MAX_SHOWN_IMAGES]

    def record(self) -> dict[str, Any]:
        """Plain data; reads the files of the images that are shown."""
        best = {shown.image for shown in self.best}
        worst = [shown for shown in self.worst if shown.image not in best]  # of few images the best are the worst too
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
        pass  # gone, or of a kind that only its data set can read: the masks are shown alone
    masks = dict(truth=_text(shown.truth), prediction=_text(shown.prediction))
    return dict(image=shown.image, score=shown.score, picture=picture, **masks)


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode()
