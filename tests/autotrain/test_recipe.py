"""Recipes for a folder: of every family and of the shipped configs, fitted to classes, images and memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.folder_training import apart, train  # noqa: F401
from helpers.tiny_training import write_config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, DefaultScope

from mmseg_volo.autotrain import batch_size as memory
from mmseg_volo.autotrain import recipe as plan
from mmseg_volo.autotrain.adapt import fit_recipe
from mmseg_volo.autotrain.config_writer import config_text, literal
from mmseg_volo.autotrain.label_map import Labels
from mmseg_volo.config import load_config, shipped_configs
from mmseg_volo.datasets.mask_codes import MaskRule
from mmseg_volo.zoo.cost import build_on_meta


@pytest.mark.parametrize(
    'name, classes, channels',
    [
        ('volo_d1', 2, 5),
        ('caformer_s18', 300, 3),
        ('t2t_vit_14', 300, 5),
        ('coatnet_rmlp_2_rw', 2, 3),
        ('randformer_s12', 19, 4),
    ],
)
def test_every_family_has_a_recipe(name: str, classes: int, channels: int, tmp_path: Path) -> None:
    pixels = 384 if name.startswith('coatnet') else 224
    normal = () if channels == 3 else ((1.0,) * channels, (2.0,) * channels)
    images = plan.ImageProperties(2000, 1000, True, *normal)
    weights = plan.InitialWeights('x.pth', pixels, '')
    cfg = plan.recipe(name, weights, images, plan.crop_of(images, None), 8, plan.length_of(300, 8, None, False), 300)
    labels = Labels(MaskRule('values', [*range(classes)]), tuple(f'c{i}' for i in range(classes)), None)
    text = config_text(fit_recipe(cfg, labels, images, None, 8, ('train', 'val'), '/data', 0), 'A test.')
    (tmp_path / 'config.py').write_text(text)
    assert max(map(len, text.splitlines())) <= 120
    model = build_on_meta(load_config(tmp_path / 'config.py')).eval()
    with torch.device('meta'):
        maps = model.extract_feat(torch.empty(1, channels, *cfg['crop_size']))
        assert model.decode_head(maps).shape == (1, classes, 128, 128)
    assert model.decode_head.ignore_index == (255 if classes < 256 else 65535)


@pytest.mark.parametrize('name', [n for n in shipped_configs() if n.endswith('_ade20k')])
def test_a_backbone_trains_as_its_shipped_config(name: str) -> None:
    """At the recipes' batch: learning rates with their ends, weight and layer decay, drop path, norms and neck."""
    theirs, images = load_config(name).to_dict(), plan.ImageProperties(512, 512, True)
    cfg = plan.recipe(
        name.removesuffix('_ade20k'), plan.InitialWeights('x.pth', 224, ''), images, (512, 512), 16, 40_000, 300
    )
    for key in ('lr', 'weight_decay'):
        assert cfg['optim_wrapper']['optimizer'][key] == theirs['optim_wrapper']['optimizer'][key]
    assert cfg['optim_wrapper'].get('paramwise_cfg') == theirs['optim_wrapper'].get('paramwise_cfg')
    theirs['param_scheduler'][1]['end'] = 40_000
    assert cfg['param_scheduler'] == theirs['param_scheduler']
    for key in ('drop_path_rate', 'out_norm'):
        assert cfg['model']['backbone'].get(key) == theirs['model']['backbone'].get(key), key
    assert cfg['model'].get('neck') == theirs['model'].get('neck')
    assert cfg['model']['test_cfg'].keys() >= {'mode'}


def test_from_scratch_no_layer_is_held_back() -> None:
    for name in ('caformer_s18', 'volo_d5'):
        cfg = plan.recipe(
            name, plan.InitialWeights(None, 224, ''), plan.ImageProperties(512, 512, True), (512, 512), 4, 100, 30
        )
        assert cfg['optim_wrapper']['optimizer'] == dict(type='AdamW', lr=2.5e-4, weight_decay=0.05)
        assert 'paramwise_cfg' not in cfg['optim_wrapper'] and cfg['param_scheduler'][1]['eta_min'] == 0
        assert cfg['model']['backbone']['drop_path_rate'] == 0.1


@pytest.mark.parametrize('model', ['volo_d1', 'caformer_s18_ade20k_segformer', 'volo_camvid'])
def test_own_data_is_averaged_over_labelled_pixels(model: str) -> None:
    """Where the shipped configs for Cityscapes and ADE20K count all, as few are unlabelled there."""
    images = plan.ImageProperties(512, 512, True)
    base = plan.shipped(model, None, None) if plan.is_shipped(model) else None
    base = base or plan.recipe(model, plan.InitialWeights('x.pth', 224, ''), images, (512, 512), 4, 100, 30)
    labels = Labels(MaskRule('values', [0, 1, 2]), ('a', 'b', 'c'), None)
    for weights in (None, [0.5, 1.0, 1.5]):
        fitted = fit_recipe(base, labels, images, weights, 4, ('train', 'val'), '/data', 0)['model']
        losses = [fitted[k]['loss_decode'] for k in ('decode_head', 'auxiliary_head') if k in fitted]
        assert all(loss['type'] == 'WeightedCrossEntropy' or loss['avg_non_ignore'] for loss in losses)


def test_a_gpu_takes_what_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def step(model: torch.nn.Module, images: int, *_: Any) -> None:
        tried.append(images)
        if images > 4:
            raise torch.cuda.OutOfMemoryError

    monkeypatch.setattr(torch.nn.Module, 'cuda', lambda self, *_: self)
    for name, value in (('memory_allocated', 0), ('max_memory_allocated', 0), ('mem_get_info', (1 << 40, 1 << 40))):
        monkeypatch.setattr(torch.cuda, name, lambda value=value: value)
    for name in ('reset_peak_memory_stats', 'empty_cache'):
        monkeypatch.setattr(torch.cuda, name, lambda: None)
    cfg = load_config(write_config(Path.cwd(), 'crop_size = (64, 64)\n'))
    with DefaultScope.overwrite_default_scope('mmseg'):
        model = revert_sync_batchnorm(MODELS.build(cfg.model)).train()
    memory._step(model, 2, 3, (64, 64))
    assert all(p.grad is not None for p in model.parameters())
    monkeypatch.setattr(memory, '_step', step)
    assert memory.fitting_batch(cfg, 3, 100) == 4 and tried == [16, 8, 4]
    assert memory.fitting_batch(cfg, 3, 2) == 2


def test_source_of_values() -> None:
    value = dict(a=[dict(type='X', b=(1,), c=list(range(80)))], d={'x-y': None}, e='it\'s "so"')
    assert eval(literal(value)) == value
