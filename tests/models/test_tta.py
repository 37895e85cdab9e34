"""The multi-scale test against a plain one that looks at one scale after the other, on real frames."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import DATASETS, MODELS, DefaultScope

from mmseg_volo.config import load_config
from mmseg_volo.datasets.synthetic import scenes

RATIOS = (0.75, 1.0, 1.25, 1.5, 1.75)


@pytest.fixture(autouse=True)
def scope() -> Iterator[None]:
    with DefaultScope.overwrite_default_scope('mmseg'), torch.no_grad():
        yield


def wrapped(cfg: Config) -> torch.nn.Module:
    """The segmentor of a config, shrunken, with sliding windows, in its wrapper for the multi-scale test."""
    cfg.model.backbone.arch = dict(depths=[1, 1, 1, 1], dims=[32, 64, 64, 64], num_heads=[2, 4, 4, 4], stem_dim=8)
    cfg.model.decode_head.update(in_channels=[32, 64, 64, 64], channels=16, norm_cfg=dict(type='BN'))
    cfg.model.pop('neck', None)
    cfg.model.pop('auxiliary_head', None)
    cfg.model.test_cfg = dict(mode='slide', crop_size=(128, 160), stride=(96, 112))
    model = MODELS.build(dict(**cfg.tta_model, module=cfg.model)).eval()
    last = model.module.decode_head.conv_seg
    torch.nn.init.normal_(last.weight)  # else all classes are about as probable
    logits = model.module.decode_head(model.module.extract_feat(torch.randn(2, 3, 128, 160)))
    std, mean = torch.std_mean(logits.transpose(0, 1).flatten(1), 1)
    last.weight.div_(std[:, None, None, None])  # whatever the random numbers, every class is the largest somewhere
    last.bias.sub_(mean).div_(std)
    return model


def test_equals_one_scale_after_the_other(camvid: Path) -> None:
    cfg = load_config('volo_camvid', {'data_root': str(camvid)})
    model = wrapped(cfg)
    many = DATASETS.build({**cfg.test_dataloader.dataset, 'pipeline': cfg.tta_pipeline, 'indices': [0, 100]})
    one = DATASETS.build({**cfg.test_dataloader.dataset, 'pipeline': [], 'indices': [0, 100]})
    views = [t for t in cfg.tta_pipeline if t.type == 'TestTimeAug'][0].transforms
    assert [round(v.scale[0] / 336, 2) for v in views[0]] == list(RATIOS)
    for i in range(2):
        (found,) = model.test_step(pseudo_collate([many[i]]))
        total = 0
        for scale in views[0]:
            for flip in views[1]:
                steps = Compose([t for t in cfg.tta_pipeline if t.type != 'TestTimeAug'] + [scale, flip, views[3][0]])
                (sample,) = model.module.test_step(pseudo_collate([steps(one.get_data_info(i))]))
                total = total + sample.seg_logits.data.double().softmax(0)
        mean = total / (len(RATIOS) * 2)
        torch.testing.assert_close(found.seg_logits.data.double(), mean, rtol=0, atol=1e-6)
        best, second = mean.topk(2, dim=0).values
        agree = found.pred_sem_seg.data[0] == mean.argmax(0)
        assert agree[best - second > 1e-6].all()
        assert found.pred_sem_seg.data.shape == (1, 360, 480) == (1, *found.gt_sem_seg.data.shape[1:])
        assert len(found.pred_sem_seg.data.unique()) > 3


def scene_batch(tmp_path: Path, cfg: Config) -> dict:
    root = scenes.generate(tmp_path / 'scenes', 1, 2, 64, 128)
    cfg.test_dataloader.dataset.update(data_root=str(root), pipeline=cfg.tta_pipeline)
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    return pseudo_collate([dataset[0], dataset[1]])


def test_holds_the_logits_of_one_view(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = load_config('volo_demo')
    model = wrapped(cfg)
    alive: list[weakref.ref] = []
    step = model.module.test_step

    def spy(data: dict) -> list:
        assert not [r for r in alive if r() is not None], 'the logits of an earlier view are still held'
        samples = step(data)
        alive.extend(weakref.ref(s.seg_logits.data) for s in samples)
        return samples

    monkeypatch.setattr(model.module, 'test_step', spy)
    found = model.test_step(scene_batch(tmp_path, cfg))
    assert len(alive) == 2 * 10
    assert [s.pred_sem_seg.data.shape for s in found] == [(1, 64, 128)] * 2
    for sample in found:
        np.testing.assert_allclose(sample.seg_logits.data.sum(0), 1, rtol=1e-5)


def test_one_channel_is_a_probability(tmp_path: Path) -> None:
    cfg = load_config('volo_demo')
    cfg.model.decode_head.update(num_classes=2, out_channels=1, threshold=0.4)
    cfg.model.decode_head.loss_decode = dict(type='CrossEntropyLoss', use_sigmoid=True, avg_non_ignore=True)
    model = wrapped(cfg)
    model.module.decode_head.conv_seg.weight.mul_(0.1)  # else what is drawn may outweigh the bias
    model.module.decode_head.conv_seg.bias.fill_(-3)
    for sample in model.test_step(scene_batch(tmp_path, cfg)):
        mean = sample.seg_logits.data
        assert 0 <= mean.min() < 0.5 and mean.max() <= 1  # the sigmoid of a sigmoid would stay above 0.5
        torch.testing.assert_close(sample.pred_sem_seg.data, (mean > 0.4).float())
