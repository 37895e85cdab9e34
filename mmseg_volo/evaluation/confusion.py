"""The confusion matrix of a mask: how many pixels of each class were taken for each."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor

PIECE = 1 << 22  # pixels that are counted at once: bounds memory, and OpenCV's float32 counts are exact up to 1 << 24


def confusion_matrix(truth: Tensor, prediction: Tensor, num_classes: int, ignore_index: int) -> np.ndarray:
    """Counts the pixels of each class by the class that was predicted.

    Args:
        truth: class indices (H, W), integers, on any device.
        prediction: class indices (H, W), integers, on any device.
        num_classes: how many classes there are.
        ignore_index: value of `truth` at pixels that are not counted.

    Returns:
        int64 (num_classes + 1, num_classes + 1); rows are the truth, columns the prediction; the last of both counts
        values that are no class.
    """
    rows = max(1, PIECE // max(1, truth.shape[-1]))
    total = np.zeros((num_classes + 1, num_classes + 1), np.int64)
    for true, pred in zip(truth.split(rows), prediction.split(rows), strict=True):
        counts = _of_bytes(true, pred, num_classes, ignore_index)
        if counts is None:
            total += _of_any(true.to(pred.device), pred, num_classes, ignore_index)
        else:
            total[:num_classes, :num_classes] += counts
    return total


def iou(matrix: np.ndarray) -> np.ndarray:
    """Intersection over union of each class, 0 to 1, from a confusion matrix; NaN for one that occurs nowhere."""
    hit = matrix.diagonal().astype(np.float64)
    union = matrix.sum(0) + matrix.sum(1) - hit
    return np.divide(hit, union, out=np.full(len(hit), np.nan), where=union > 0)


def _of_bytes(truth: Tensor, prediction: Tensor, num_classes: int, ignore_index: int) -> np.ndarray | None:
    """(num_classes, num_classes) of masks on the CPU whose values fit into bytes; None if they do not, or some are no
    class.
    """
    if prediction.device.type != 'cpu' or num_classes > 256 or not 0 <= ignore_index < 256 or not truth.numel():
        return None
    masks = []
    for mask in (truth, prediction):
        if mask.dtype != torch.uint8:
            low, high = map(int, mask.aminmax())
            if low < 0 or high > 255:
                return None
            mask = mask.to(torch.uint8)
        masks.append(mask.cpu().numpy())
    counts = cv2.calcHist(masks, [0, 1], None, [num_classes] * 2, [0, num_classes] * 2).astype(np.int64)
    if ignore_index < num_classes:
        counts[ignore_index] = 0
    return counts if counts.sum() == np.count_nonzero(masks[0] != ignore_index) else None


def _of_any(truth: Tensor, prediction: Tensor, num_classes: int, ignore_index: int) -> np.ndarray:
    """As `confusion_matrix` returns it."""
    row = torch.where((truth >= 0) & (truth < num_classes), truth.long(), num_classes)
    row.masked_fill_(truth == ignore_index, num_classes + 1)
    column = torch.where((prediction >= 0) & (prediction < num_classes), prediction.long(), num_classes)
    index = row.mul_(num_classes + 1).add_(column).flatten()
    counts = torch.bincount(index, minlength=(num_classes + 2) * (num_classes + 1))
    return counts.view(num_classes + 2, num_classes + 1)[:-1].cpu().numpy()
