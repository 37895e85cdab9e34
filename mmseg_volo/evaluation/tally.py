"""What an evaluation keeps for the report: who was taken for whom, a score per image, the best and the worst images."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from mmseg_volo.files import encode
from mmseg_volo.pictures import read_image

KEPT = 4  # best images, and as many worst ones
SIDE = 512  # pixels: the longer side of the pictures that are kept, at most
PIECE = 1 << 22  # pixels that are counted at once: bounds memory
FORMAT = 1


@dataclass(frozen=True)
class Shown:
    """One of the best or worst images, made small."""

    image: str  # path
    score: float
    size: tuple[int, int]  # (height, width) of the pictures kept
    truth: bytes  # PNG of class indices; what is not scored has the index behind the last class
    prediction: bytes


class Tally:
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

    def add(self, image: str, truth: Tensor, prediction: Tensor) -> None:
        """Counts an image.

        Args:
            image: its path.
            truth: class indices (H, W), on any device.
            prediction: class indices (H, W), on any device.
        """
        counts = confusion(truth, prediction, self.num_classes, self.ignore_index)
        self.confusion += counts
        found = counts.sum(1) > 0
        score = float(100 * iou(counts)[found].mean()) if found.any() else None
        self.images.append((image, score))
        if score is None:
            return
        if len(self.best) < KEPT or score > self.best[-1].score or score < self.worst[-1].score:
            step = -(-max(truth.shape) // SIDE)
            masks = [mask[::step, ::step].cpu().numpy() for mask in (truth, prediction)]
            size = masks[0].shape
            self._keep([Shown(image, score, size, *(_index_png(mask, self.num_classes) for mask in masks))])

    def merge(self, other: Tally) -> None:
        """Adds what another process has counted."""
        self.confusion += other.confusion
        self.images += other.images
        self._keep([*other.best, *other.worst])

    def _keep(self, more: Sequence[Shown]) -> None:
        key = lambda shown: (shown.score, shown.image)  # noqa: E731
        self.best = sorted({*self.best, *more}, key=key, reverse=True)[:KEPT]
        self.worst = sorted({*self.worst, *more}, key=key)[:KEPT]

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


def confusion(truth: Tensor, prediction: Tensor, num_classes: int, ignore_index: int) -> np.ndarray:
    """How many pixels of each class were taken for each.

    Args:
        truth: class indices (H, W).
        prediction: class indices (H, W).
        num_classes: how many classes there are; other values are not counted, nor is `ignore_index`.
        ignore_index: label value of pixels that are not scored.

    Returns:
        int64 (num_classes, num_classes); rows are the truth.
    """
    rows = max(1, PIECE // max(1, truth.shape[-1]))
    total = np.zeros((num_classes, num_classes), np.int64)
    for true, pred in zip(truth.split(rows), prediction.split(rows), strict=True):
        true = true.to(pred.device)
        bytes_only = pred.device.type == 'cpu' and num_classes <= 256 and all(map(_is_bytes, (true, pred)))
        total += (_of_bytes if bytes_only else _of_any)(true, pred, num_classes)
    if 0 <= ignore_index < num_classes:
        total[ignore_index] = 0
    return total


def _is_bytes(mask: Tensor) -> bool:
    low, high = map(int, mask.aminmax())
    return low >= 0 and high < 256


def _of_bytes(truth: Tensor, prediction: Tensor, num_classes: int) -> np.ndarray:
    masks = [mask.to(torch.uint8).numpy() for mask in (truth, prediction)]
    # float32, which is exact here: a piece has fewer than 1 << 24 pixels
    counts = cv2.calcHist(masks, [0, 1], None, [num_classes] * 2, [0, num_classes] * 2)
    return counts.astype(np.int64)


def _of_any(truth: Tensor, prediction: Tensor, num_classes: int) -> np.ndarray:
    truth, prediction = truth.long(), prediction.long()
    counted = (truth >= 0) & (truth < num_classes) & (prediction >= 0) & (prediction < num_classes)
    pairs = truth.mul(num_classes).add_(prediction)[counted]
    return torch.bincount(pairs, minlength=num_classes**2).cpu().view(num_classes, num_classes).numpy()


def iou(counts: np.ndarray) -> np.ndarray:
    """Intersection over union of each class, 0 to 1, from `confusion`'s counts; NaN for one that occurs nowhere."""
    hit = counts.diagonal().astype(np.float64)
    union = counts.sum(0) + counts.sum(1) - hit
    return np.divide(hit, union, out=np.full(len(hit), np.nan), where=union > 0)


def _index_png(mask: np.ndarray, num_classes: int) -> bytes:
    wide = num_classes > 255
    indices = np.where((mask >= 0) & (mask < num_classes), mask, num_classes)
    return encode('.png', indices.astype(np.uint16 if wide else np.uint8))


def _with_picture(shown: Shown) -> dict[str, Any]:
    picture = None
    try:
        height, width = shown.size
        image = cv2.resize(read_image(shown.image), (width, height), interpolation=cv2.INTER_AREA)
        picture = _text(encode('.jpg', image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88]))
    except (OSError, ValueError, cv2.error):
        pass  # gone, or of a kind that only its data set can read: the masks are shown alone
    masks = dict(truth=_text(shown.truth), prediction=_text(shown.prediction))
    return dict(image=shown.image, score=shown.score, picture=picture, **masks)


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode()
