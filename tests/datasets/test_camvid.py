"""CamVid as we read it, against facts measured without us."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.registry import DATASETS, DefaultScope
from mmseg.evaluation import IoUMetric

from mmseg_volo.config import load_config


def labels(camvid: Path, split: str) -> list[torch.Tensor]:
    """The labels (360, 480) of a split through our data set and pipeline."""
    dataset = dict(load_config('volo_camvid').test_dataloader.dataset)
    dataset['data_prefix'] = dict(img_path=f'images/{split}', seg_map_path=f'labels/{split}')
    with DefaultScope.overwrite_default_scope('mmseg'):
        found = DATASETS.build({**dataset, 'data_root': str(camvid)})
    return [item['data_samples'].gt_sem_seg.data[0] for item in found]


def test_void_is_ignored_and_scores_are_the_known_ones(camvid: Path) -> None:
    """The per-pixel mode of the training labels scores 17.03 mIoU on the test frames, 11 classes, void ignored."""
    train, test = labels(camvid, 'train'), labels(camvid, 'test')
    assert (len(train), len(test)) == (367, 233)
    assert {*torch.stack(train).unique().tolist()} == {*range(11), 255}
    counts = np.zeros((11, 360, 480), np.int32)
    for label in train:
        for c in range(11):
            counts[c] += (label == c).numpy()
    mode = torch.from_numpy(counts.argmax(0))
    metric = IoUMetric()
    metric.dataset_meta = dict(classes=[str(c) for c in range(11)])
    for label in test:
        sample = dict(pred_sem_seg=dict(data=mode[None]), gt_sem_seg=dict(data=label[None]))
        metric.process({}, [sample])
    assert metric.evaluate(len(test))['mIoU'] == pytest.approx(17.03, abs=0.01)
