"""Turn the record of an evaluation into the page's tables, confusion matrix and pictures."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mmseg_volo.errors import UsageError
from mmseg_volo.evaluation.confusion import iou
from mmseg_volo.report.figures import matrix
from mmseg_volo.utils.files import encode_image
from mmseg_volo.visualization import colour_mask

CONFUSIONS = 8  # rows of the table of the most frequent mistakes
MISTAKE = (225, 48, 36)  # RGB of wrong pixels in an error map
UNSCORED = (70, 90, 130)

Palette = Sequence[Sequence[int]]  # RGB of each class


def evaluation_view(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the template's variables for the record of a validation or a test."""
    confusion = np.array(record['confusion'], np.int64)
    classes, palette = record['classes'], record['palette']
    return dict(
        title=_title(record),
        metrics={name: round(value, 2) for name, value in record['metrics'].items()},
        classes=_classes(confusion, classes, palette),
        matrix=matrix('confusion', confusion, classes),
        confusions=_confusions(confusion, classes, palette),
        images=len(record['images']),
        miou=100 * float(np.nanmean(iou(confusion))) if confusion.any() else None,
        accuracy=100 * float(confusion.trace() / confusion.sum()) if confusion.any() else None,
        histogram=_histogram([score for _, score in record['images'] if score is not None]),
        rows=[(name, [_panels(item, classes, palette) for item in record[name]]) for name in ('best', 'worst')],
    )


def _title(record: Mapping[str, Any]) -> str:
    if record['kind'] == 'val':
        return f'Validation at iteration {record["iter"]:,}'
    return f'Test of {Path(record["checkpoint"]).name}{", scales and flips averaged" * bool(record.get("tta"))}'


def css(rgb: Sequence[int]) -> str:
    """Return a colour in CSS notation."""
    return 'rgb({},{},{})'.format(*(int(value) for value in rgb))


def _classes(confusion: np.ndarray, classes: Sequence[str], palette: Palette) -> list[dict[str, Any]]:
    """Return metrics in per cent, the best class first; None for a class that does not occur."""
    hit, truth, predicted = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
    scores = [iou(confusion)] + [
        np.divide(hit, of, out=np.full(len(hit), np.nan), where=of > 0) for of in (truth, predicted)
    ]
    share = truth / max(truth.sum(), 1)
    rows = [
        dict(name=name, colour=css(palette[i]), share=100 * share[i])
        | {
            key: None if np.isnan(values[i]) else 100 * float(values[i])
            for key, values in zip(('iou', 'recall', 'precision'), scores, strict=True)
        }
        for i, name in enumerate(classes)
    ]
    return sorted(rows, key=lambda row: -1 if row['iou'] is None else row['iou'], reverse=True)


def _confusions(confusion: np.ndarray, classes: Sequence[str], palette: Palette) -> list[dict[str, Any]]:
    """Return the most frequent mistakes: share of all wrong pixels, and of the true class, in per cent."""
    wrong = confusion * ~np.eye(len(classes), dtype=bool)
    order = np.argsort(wrong, axis=None)[::-1][:CONFUSIONS]
    return [
        dict(
            truth=classes[t],
            prediction=classes[p],
            colours=(css(palette[t]), css(palette[p])),
            of_wrong=100 * wrong[t, p] / wrong.sum(),
            of_class=100 * wrong[t, p] / confusion[t].sum(),
        )
        for t, p in zip(*np.unravel_index(order, wrong.shape), strict=True)
        if wrong[t, p]
    ]


def _histogram(scores: Sequence[float]) -> list[int]:
    """Count the images with a mean IoU of 0 to 10, 10 to 20, ... per cent."""
    return np.histogram(scores, 10, (0, 100))[0].tolist() if scores else []


def _panels(item: Mapping[str, Any], classes: Sequence[str], palette: Palette) -> dict[str, Any]:
    """Return the four pictures of an image, and the classes in them."""
    masks = [_decode(item[name], cv2.IMREAD_UNCHANGED) for name in ('truth', 'prediction')]
    truth, prediction = masks
    picture = None if item['picture'] is None else _decode(item['picture'], cv2.IMREAD_COLOR)[..., ::-1]
    scored = truth < len(classes)
    wrong = scored & (truth != prediction)
    occurring = np.union1d(truth[scored], prediction[scored])
    counts = np.bincount(truth[scored], minlength=len(classes)) + np.bincount(
        prediction[scored], minlength=len(classes)
    )
    order = sorted(occurring.tolist(), key=lambda index: -counts[index])
    return dict(
        name=Path(item['image']).name,
        path=item['image'],
        score=item['score'],
        wrong=100 * float(wrong.sum() / max(scored.sum(), 1)),
        picture=item['picture'] and f'data:image/jpeg;base64,{item["picture"]}',
        truth=_png(colour_mask(truth, palette)),
        prediction=_png(colour_mask(prediction, palette)),
        errors=_jpeg(errors(picture, wrong, scored)),
        classes=[(classes[index], css(palette[index])) for index in order],
    )


def errors(picture: np.ndarray | None, wrong: np.ndarray, scored: np.ndarray) -> np.ndarray:
    """Draw an error map: the image in grey, wrong pixels red, ignored pixels blue.

    Args:
        picture: RGB (H, W, 3), or None.
        wrong: bool (H, W).
        scored: bool (H, W).

    Returns:
        uint8 RGB (H, W, 3).
    """
    if picture is None:
        drawn = np.full((*wrong.shape, 3), 200, np.uint8)
    else:
        grey = cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2GRAY)
        drawn = cv2.merge([(grey // 2 + 90).astype(np.uint8)] * 3)
    for where, tint, opacity in ((wrong, MISTAKE, 0.85), (~scored, UNSCORED, 0.6)):
        drawn[where] = ((1 - opacity) * drawn[where] + opacity * np.array(tint)).astype(np.uint8)
    return drawn


def _decode(text: str, flag: int) -> np.ndarray:
    image = cv2.imdecode(np.frombuffer(base64.b64decode(text), np.uint8), flag)
    assert image is not None
    return image


def _png(picture: np.ndarray) -> str:
    return _uri('png', encode_image('.png', picture[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 9]))


def _jpeg(picture: np.ndarray) -> str:
    try:
        return _uri('jpeg', encode_image('.jpg', picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85]))
    except UsageError:  # too wide or too high for JPEG
        return _png(picture)


def _uri(kind: str, content: bytes) -> str:
    return f'data:image/{kind};base64,{base64.b64encode(content).decode()}'
