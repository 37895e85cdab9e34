"""Our IoUMetric against mmseg's, and where mmseg's is wrong."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.registry import METRICS
from mmseg.evaluation import IoUMetric

from mmseg_volo.errors import UsageError
from mmseg_volo.evaluation import SegIoUMetric, confusion


def metric_of(kind: type[IoUMetric], num_classes: int, **options: object) -> IoUMetric:
    metric = kind(**options)
    metric.dataset_meta = dict(classes=[f'c{i}' for i in range(num_classes)])
    return metric


def sample(pred: torch.Tensor, label: torch.Tensor, **meta: object) -> dict:
    return dict(pred_sem_seg=dict(data=pred[None]), gt_sem_seg=dict(data=label[None]), **meta)


@pytest.mark.parametrize('num_classes, ignore_index', [(2, 255), (19, 255), (150, 0), (256, 7), (300, 255), (19, -100)])
@pytest.mark.parametrize('dtype', [torch.int64, torch.int32])
def test_counts_and_figures_are_those_of_mmseg(num_classes: int, ignore_index: int, dtype: torch.dtype) -> None:
    options = dict(
        iou_metrics=['mIoU', 'mDice', 'mFscore'], nan_to_num=-1, beta=2, prefix='p', ignore_index=ignore_index
    )
    ours, theirs = (metric_of(kind, num_classes, **options) for kind in (SegIoUMetric, IoUMetric))
    for shape in ((33, 47), (1, 9), (8, 1)):
        pred, label = torch.randint(max(2, num_classes - 1), (2, *shape)).to(dtype)
        label[torch.rand(shape) < 0.5] = ignore_index
        label = torch.where(torch.rand(shape) < 0.3, pred, label)
        for metric in (ours, theirs):
            metric.process({}, [sample(pred, label), sample(label.clamp(0, num_classes - 1), label)])
    for our, their in zip(ours.results, theirs.results, strict=True):
        assert our.dtype == torch.int64
        torch.testing.assert_close(our.double(), torch.stack(their).double(), rtol=0, atol=0)
    counts = sum(ours.results)
    first, second = ours.evaluate(6), theirs.evaluate(6)
    assert [*first] == [*second] and 'p/mFscore' in first
    same, union = counts[:2]
    if ((same == 0) & (union > 0)).any():  # classes without a hit, whose F-score is 0: mmseg leaves some of them out
        first.pop('p/mFscore'), second.pop('p/mFscore')
    assert first == pytest.approx(second, abs=0.011)  # rounded to two digits


def by_definition(matrix: list[list[int]], beta: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Precision, recall and F-score of each class of a confusion matrix, rows the truth; nan for 0/0."""
    figures = []
    for i, row in enumerate(matrix):
        hit, missed = row[i], sum(row) - row[i]
        wrong = sum(other[i] for other in matrix) - hit
        ratio = lambda a, b: a / b if b else np.nan  # noqa: E731
        weighted = (1 + beta**2) * hit + beta**2 * missed + wrong
        figures.append((ratio(hit, hit + wrong), ratio(hit, hit + missed), ratio((1 + beta**2) * hit, weighted)))
    return tuple(np.array(figures).T)


@pytest.mark.parametrize('beta', [1, 2])
@pytest.mark.parametrize(
    'matrix',
    [
        [[8, 2, 0], [1, 9, 0], [3, 1, 0]],  # the third is never predicted
        [[8, 2, 0], [1, 9, 5], [0, 0, 0]],  # never in the truth
        [[8, 2, 0], [1, 9, 0], [0, 0, 0]],  # nowhere
        [[0, 2, 0], [4, 0, 0], [0, 0, 7]],  # predicted, and wrong each time
        [[5, 0, 0], [3, 0, 0], [2, 0, 0]],  # one class for all
    ],
)
def test_a_class_without_a_hit_has_no_score_and_counts(matrix: list[list[int]], beta: int) -> None:
    pairs = [(i, j) for i, row in enumerate(matrix) for j, count in enumerate(row) for _ in range(count)]
    label, pred = (torch.tensor(values)[None] for values in zip(*pairs, strict=True))
    metric = metric_of(SegIoUMetric, 3, iou_metrics=['mIoU', 'mDice', 'mFscore'], beta=beta)
    metric.process({}, [sample(pred, label)])
    figures = metric.total_area_to_metrics(*metric.results[0], ['mDice', 'mFscore'], None, beta)
    wanted = by_definition(matrix, beta)
    for name, values in zip(('Precision', 'Recall', 'Fscore'), wanted, strict=True):
        np.testing.assert_allclose(figures[name], values)
    shown = metric.evaluate(1)
    assert shown['mFscore'] == pytest.approx(100 * np.nanmean(wanted[2]), abs=0.006)
    if beta == 1:
        np.testing.assert_allclose(figures['Dice'], wanted[2])
        assert shown['mFscore'] == shown['mDice']


def test_bytes_pieces_and_the_general_way_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small masks as uint8, in pieces, and as a GPU counts them."""
    pred, label = torch.randint(12, (2, 40, 30))
    label[torch.rand(40, 30) < 0.2] = 255
    whole = SegIoUMetric.intersect_and_union(pred, label, 12, 255)
    monkeypatch.setattr(confusion, 'PIECE', 100)
    pieces = SegIoUMetric.intersect_and_union(pred.byte(), label, 12, 255)
    monkeypatch.setattr(confusion, '_of_bytes', lambda *_: None)  # as if something were wrong
    general = SegIoUMetric.intersect_and_union(pred, label, 12, 255)
    assert torch.equal(whole, pieces) and torch.equal(whole, general)
    assert whole[2].sum() == whole[3].sum() == (label != 255).sum()


@pytest.mark.parametrize('dtype', [torch.bool, torch.uint8, torch.int8, torch.uint16, torch.int64])
@pytest.mark.parametrize(('num_classes', 'ignore_index'), [(1, 255), (19, -1), (19, 300), (256, 255), (300, -100)])
def test_values_are_not_compared_in_a_narrow_type(dtype: torch.dtype, num_classes: int, ignore_index: int) -> None:
    """In a byte 300 classes would be 44, and -1 would be 255."""
    label, pred = (torch.randint(2, 256, (20, 30)).to(dtype) for _ in range(2))
    true, found = (mask.long().numpy().ravel() for mask in (label, pred))
    expected = np.zeros((num_classes + 1, num_classes + 1), np.int64)
    for t, p in zip(true, found, strict=True):
        if t != ignore_index:
            row, column = (value if 0 <= value < num_classes else num_classes for value in (t, p))
            expected[row, column] += 1
    assert (confusion.confusion_matrix(label, pred, num_classes, ignore_index) == expected).all()


@pytest.mark.skipif(not torch.cuda.is_available(), reason='no GPU here')
def test_on_a_gpu() -> None:
    pred, label = torch.randint(19, (2, 300, 500))
    label[torch.rand(300, 500) < 0.2] = 255
    there = SegIoUMetric.intersect_and_union(pred.cuda(), label, 19, 255)
    assert torch.equal(there, SegIoUMetric.intersect_and_union(pred, label, 19, 255))


def test_no_class_is_too_big_to_count() -> None:
    """mmseg's float32 sums stop at 1 << 24 pixels; a class of one pixel beside a huge one must still be seen."""
    metric = metric_of(SegIoUMetric, 2)
    label = torch.zeros(4100, 4100, dtype=torch.uint8)
    for bit in (0, 1, 1, 0):
        label[0, 0] = bit
        metric.process({}, [sample(torch.zeros(1, 1, dtype=torch.uint8).expand(4100, 4100), label)])
    same, union, pred, true = sum(metric.results)
    pixels = 4 * 4100 * 4100
    assert (same.tolist(), union.tolist()) == ([pixels - 2, 0], [pixels, 2])
    assert (pred.tolist(), true.tolist()) == ([pixels, 0], [pixels - 2, 2])
    exact = metric.total_area_to_metrics(same, union, pred, true)
    assert exact['IoU'][0] == (pixels - 2) / pixels < 1


@pytest.mark.parametrize('value', [19, 37, -1, 259, 254])
@pytest.mark.parametrize('where', ['label', 'pred'])
def test_what_is_no_class_is_an_error_that_names_the_file(value: int, where: str) -> None:
    pred, label = torch.randint(19, (2, 8, 8))
    label[0] = 255
    (label if where == 'label' else pred)[3, 4] = value
    metric = metric_of(SegIoUMetric, 19)
    names = dict(img_path='a/x.png', seg_map_path='b/x_labels.png')
    with pytest.raises(UsageError, match=rf'b/x_labels.png: .*holds \[{value}\].*0 to 18'):
        metric.process({}, [sample(pred, label, **names)])
    assert not metric.results


def test_predictions_on_ignored_pixels_do_not_matter() -> None:
    label, pred = torch.full((2, 4, 4), 255)
    label[0] = pred[0] = 3
    assert SegIoUMetric.intersect_and_union(pred, label, 19, 255)[:, 3].tolist() == [4, 4, 4, 4]


def test_other_sizes_are_named() -> None:
    metric = metric_of(SegIoUMetric, 19)
    with pytest.raises(UsageError, match=r'x.png: the label has the shape \(4, 4\), the prediction \(4, 5\)'):
        metric.process({}, [sample(torch.zeros(4, 5).long(), torch.zeros(4, 4).long(), img_path='x.png')])


def test_masks_are_class_indices(tmp_path: Path) -> None:
    for classes, wanted in ((19, np.uint8), (300, np.uint16)):
        metric = METRICS.build(dict(type='SegIoUMetric', output_dir=str(tmp_path), format_only=True))
        metric.dataset_meta = dict(classes=[str(i) for i in range(classes)], reduce_zero_label=classes == 19)
        pred = torch.tensor([[0, classes - 1]])
        metric.process({}, [dict(img_path='a/x.y.jpg', pred_sem_seg=dict(data=pred[None]))])
        mask = cv2.imread(str(tmp_path / 'x.y.png'), cv2.IMREAD_UNCHANGED)
        assert mask.dtype == wanted and mask.tolist() == [[classes == 19, classes - (classes != 19)]]


def test_typos_are_refused() -> None:
    with pytest.raises(TypeError, match='iou_metric'):
        METRICS.build(dict(type='SegIoUMetric', iou_metric=['mDice']))
