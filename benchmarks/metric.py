"""Compare the mIoU accumulation of 1024x2048 masks with mmseg's IoUMetric, on the CPU: `python benchmarks/metric.py`.

Each run scores another of a few masks: blocks of 16x16 pixels, a tenth of them wrong, a twentieth ignored, as int64,
the type of models and data sets. Both sides must reach the same counts and scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from measure import arguments, medians, report
from mmseg.evaluation import IoUMetric
from torch import Tensor

import mmseg_volo.register_all  # noqa: F401
from mmseg_volo.evaluation import SegIoUMetric

SIZE, IMAGES = (1024, 2048), 4


def masks(num_classes: int, seed: int) -> dict[str, Any]:
    """Make a sample as a model returns it: label and prediction int64 (1, 1024, 2048)."""
    rng = torch.Generator().manual_seed(seed)
    grid = [s // 16 for s in SIZE]
    true = torch.randint(num_classes, grid, generator=rng)
    other = torch.randint(num_classes, grid, generator=rng)
    pred = torch.where(torch.rand(grid, generator=rng) < 0.1, other, true)
    true = torch.where(torch.rand(grid, generator=rng) < 0.05, 255, true)
    fine = [t.repeat_interleave(16, 0).repeat_interleave(16, 1) for t in (pred, true)]
    return dict(pred_sem_seg=dict(data=fine[0][None]), gt_sem_seg=dict(data=fine[1][None]))


def score(metric: IoUMetric, samples: Sequence[dict], run: int) -> None:
    metric.process({}, [samples[run % IMAGES]])


def totals(metric: IoUMetric) -> list[Tensor]:
    """Sum the counts of a metric over all images: intersection, union, prediction and label by class."""
    return [sum(kind) for kind in zip(*metric.results, strict=True)]


def same(theirs: IoUMetric, ours: IoUMetric) -> bool:
    """Whether the counts are equal, and the scores up to the rounding of float32."""
    counts = [totals(metric) for metric in (theirs, ours)]
    figures = [m.total_area_to_metrics(*total) for m, total in zip((theirs, ours), counts, strict=True)]
    return all(torch.equal(t.double(), o.double()) for t, o in zip(*counts, strict=True)) and all(
        np.allclose(figures[0][name], figures[1][name], rtol=1e-6, atol=0) for name in ('aAcc', 'IoU', 'Acc')
    )


def main() -> None:
    args = arguments(__doc__.splitlines()[0])
    rows = []
    for num_classes in (19, 150):
        samples = [masks(num_classes, seed) for seed in range(IMAGES)]
        metrics = dict(mmseg=IoUMetric(prefix='x'), ours=SegIoUMetric(prefix='x'))
        for metric in metrics.values():
            metric.dataset_meta = dict(classes=[str(c) for c in range(num_classes)])
        sides = {name: partial(score, metric, samples) for name, metric in metrics.items()}
        seconds = medians(sides, args.runs)
        rows.append(
            {
                'classes': num_classes,
                'mmseg (ms)': 1e3 * seconds['mmseg'],
                'ours (ms)': 1e3 * seconds['ours'],
                'times faster': seconds['mmseg'] / seconds['ours'],
                'same counts and figures': same(*metrics.values()),
            }
        )
    report('mIoU accumulation, 1024x2048', rows, args)
    if not all(row['same counts and figures'] for row in rows):
        raise SystemExit('the two sides differ')


if __name__ == '__main__':
    main()
