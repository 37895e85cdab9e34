"""Count the confusion matrix of a predicted mask, and derive IoU from it."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor

PIECE = 1 << 22  # pixels counted at once: bounds memory; OpenCV's float32 counts are exact up to 1 << 24


def confusion_matrix(truth: Tensor, prediction: Tensor, num_classes: int, ignore_index: int) -> np.ndarray:
    """Count the pixels of each class by the class that was predicted.

    Args:
        truth: class indices (H, W), integers, on any device.
        prediction: class indices (H, W), integers, on any device.
        num_classes: number of classes.
        ignore_index: value of `truth` at pixels that are not counted.

    Returns:
        int64 (num_classes + 1, num_classes + 1); rows are the truth, columns the prediction; the last row and column
        count values that are not a class.

    Raises:
        ValueError: the shapes differ.
    """
    if truth.shape != prediction.shape:
        raise ValueError(f'the label has the shape {tuple(truth.shape)}, the prediction {tuple(prediction.shape)}')
    total = np.zeros((num_classes + 1, num_classes + 1), np.int64)
    for true, pred in zip(truth.flatten().split(PIECE), prediction.flatten().split(PIECE), strict=True):
        counts = _of_bytes(true, pred, num_classes, ignore_index)
        if counts is None:
            total += _of_any(true.to(pred.device), pred, num_classes, ignore_index)
        else:
            total[:num_classes, :num_classes] += counts
    return total


def iou(matrix: np.ndarray) -> np.ndarray:
    """Return the intersection over union of each class, 0 to 1; NaN for a class that occurs nowhere."""
    hit = matrix.diagonal().astype(np.float64)
    union = matrix.sum(0) + matrix.sum(1) - hit
    return np.divide(hit, union, out=np.full(len(hit), np.nan), where=union > 0)


def _of_bytes(truth: Tensor, prediction: Tensor, num_classes: int, ignore_index: int) -> np.ndarray | None:
    """Count masks on the CPU whose values fit into bytes: (num_classes, num_classes); None if a value does not fit or
    is not a class.
    """
    if prediction.device.type != 'cpu' or num_classes > 256 or not 0 <= ignore_index < 256 or not truth.numel():
        return None
    masks = []
    for mask in (truth, prediction):
        if mask.dtype != torch.uint8:
            if not mask.dtype.is_signed:  # torch has no aminmax of uint16
                return None
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
    """Count masks of any integers, as `confusion_matrix` returns it."""
    truth, prediction = truth.long(), prediction.long()  # compared with 300, a byte would see 44
    row = torch.where((truth >= 0) & (truth < num_classes), truth, num_classes)
    row.masked_fill_(truth == ignore_index, num_classes + 1)
    column = torch.where((prediction >= 0) & (prediction < num_classes), prediction, num_classes)
    index = row.mul_(num_classes + 1).add_(column).flatten()
    counts = torch.bincount(index, minlength=(num_classes + 2) * (num_classes + 1))
    return counts.view(num_classes + 2, num_classes + 1)[:-1].cpu().numpy()
