"""A training begins with what fits of another segmentor's checkpoint, and one line says what did not."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import folder_data as fd
from helpers.folder_training import apart, train  # noqa: F401
from helpers.tiny_training import predictor, write_config
from helpers.tiny_training import train as train_config

import mmseg_volo
from mmseg_volo.config import load_config
from mmseg_volo.datasets.synthetic import scenes
from mmseg_volo.engine.checkpoint import write_checkpoint
from mmseg_volo.engine.checkpoint_content import to_plain
from mmseg_volo.io.checkpoint import RECORD, read_checkpoint, save_safetensors
from mmseg_volo.models.backbones import CAFormer
from mmseg_volo_cli import main

HEAD = 'decode_head.conv_seg'
NO_STEPS = ['train_cfg.max_iters=1', 'optim_wrapper.optimizer.lr=1e-30', 'optim_wrapper.optimizer.adamw_lr=1e-30']


@pytest.fixture
def data() -> Path:
    return scenes.generate(Path('scenes'), 2, 1, 64, 128)


def other(classes: list[str] | None = None, **changes: Any) -> dict[str, Any]:
    """A checkpoint of the small model; of other classes where these are given."""
    content = read_checkpoint(predictor(Path.cwd()))
    content['state_dict'] |= changes
    if classes is not None:
        for part in ('weight', 'bias'):
            rows = torch.randn(len(classes), *content['state_dict'][f'{HEAD}.{part}'].shape[1:])
            content['state_dict'][f'{HEAD}.{part}'] = rows
        content['meta']['dataset_meta'] = dict(classes=classes, palette=[[0, 0, 0]] * len(classes))
    return content


def begun(data: Path, source: str, capsys: pytest.CaptureFixture, way: str = 'load_from') -> tuple[dict, str]:
    """The weights after a training that changes nothing, and the line on what it began with."""
    options = {
        'load_from': [f'load_from={source}'],
        'model.init_cfg': ['model.init_cfg.type=Pretrained', f'model.init_cfg.checkpoint={source}'],
    }[way]
    assert train_config(write_config(Path.cwd()), data, Path('work'), *NO_STEPS, *options) == 0
    said = re.search(r'INFO - (weights: .*)', capsys.readouterr().out)[1]
    return read_checkpoint('work/iter_1.pth')['state_dict'], said


@pytest.mark.parametrize('way', ['load_from', 'model.init_cfg'])
def test_rows_of_the_same_classes(way: str, data: Path, capsys: pytest.CaptureFixture) -> None:
    content = other(['car', 'moon', 'road'])
    torch.save(content, 'other.pth')
    weights, said = begun(data, 'other.pth', capsys, way)
    layer = r'decode_head.conv_seg \(3 classes there, 10 here, but for the rows of road, car\)'
    assert re.fullmatch(rf'weights: (\d+) of \d+ tensors from other.pth; not loaded: {layer}', said), said
    given = content['state_dict']
    for name, row in (('car', 0), ('road', 2)):
        here = scenes.CLASSES.index(name)
        assert torch.equal(weights[f'{HEAD}.weight'][here], given[f'{HEAD}.weight'][row])
    assert not torch.equal(weights[f'{HEAD}.weight'][scenes.CLASSES.index('sky')], given[f'{HEAD}.weight'][1])
    assert all(torch.allclose(weights[key], given[key]) for key in given if key.startswith('backbone.'))


@pytest.mark.parametrize('kind', ['other names', 'unknown names', 'another head', 'a number', '.safetensors'])
def test_what_is_left_out_is_said(kind: str, data: Path, capsys: pytest.CaptureFixture) -> None:
    classes = [f'name {i}' for i in range(10)] if kind == 'other names' else ['a', 'b']
    content, path = other(classes), 'other.pth'
    if kind == 'unknown names':
        content['meta'].pop('dataset_meta')
    if kind == 'a number':
        content['state_dict'][f'{HEAD}.bias'] = torch.tensor(1.0)
    if kind == 'another head':
        named = content['state_dict'].items()
        content['state_dict'] = {key.replace('decode_head.', 'decode_head.x.'): value for key, value in named}
    if kind == '.safetensors':
        path = 'other.safetensors'
        save_safetensors(content['state_dict'], path, {}, content['meta'])
    else:
        torch.save(content, path)
    _, said = begun(data, path, capsys)
    expected = {
        'other names': r'conv_seg \(10 classes there, 10 others here\)',
        'unknown names': r'conv_seg \(2 classes there, 10 here\)',
        'another head': r'decode_head \(\d+ tensors of this model\), decode_head \(\d+ tensors of the checkpoint\)',
        'a number': r'conv_seg \(2 classes there, 10 here\), decode_head.conv_seg.bias \(\(\) there, \(10,\) here\)',
        '.safetensors': r'conv_seg \(2 classes there, 10 here\)',
    }
    assert re.search(f'not loaded: (decode_head.)?{expected[kind]}$', said), said


def test_the_same_model_is_loaded_whole(data: Path, capsys: pytest.CaptureFixture) -> None:
    torch.save(other(), 'other.pth')
    weights, said = begun(data, 'other.pth', capsys)
    count = len(weights)
    assert said == f'weights: {count} of {count} tensors from other.pth'


def test_averaged_weights_begin_there_too(data: Path, capsys: pytest.CaptureFixture) -> None:
    """mmengine's EMAHook loads the checkpoint into its copy by itself."""
    torch.save(other(['car', 'moon']), 'other.pth')
    config = write_config(Path.cwd(), "custom_hooks = [*_base_.custom_hooks, dict(type='EMAHook', strict_load=True)]\n")
    assert train_config(config, data, Path('work'), *NO_STEPS, 'load_from=other.pth') == 0
    torch.save(read_checkpoint('work/iter_1.pth'), 'averaged.pth')
    assert train_config(config, data, Path('again'), *NO_STEPS, 'load_from=averaged.pth') == 0


@pytest.mark.parametrize('kind', ['another size', 'another framework', 'a backbone alone', 'half a backbone'])
def test_another_backbone_is_refused(kind: str, data: Path, capsys: pytest.CaptureFixture) -> None:
    content = other()
    weights = content['state_dict']
    if kind in ('another size', 'another framework'):
        record = dict(type='CAFormer', arch='s36') if kind == 'another size' else dict(type='ResNetV1c', depth=50)
        content['meta'][RECORD]['model']['backbone'] = record
    if kind == 'a backbone alone':
        content['state_dict'] = CAFormer('s18').state_dict()
    if kind == 'half a backbone':
        content['state_dict'] = {key: value for key, value in weights.items() if '.stages.3' not in key}
    torch.save(content, 'other.pth')
    more = "model['backbone']['arch'] = 's18'\nmodel['decode_head']['in_channels'] = [64, 128, 320, 512]\n"
    config = write_config(Path.cwd(), more if kind.startswith('another') else '')
    assert train_config(config, data, Path('work'), 'load_from=other.pth') == 2
    expected = {
        'another size': 'other.pth is for CAFormer s36, and this model has CAFormer s18',
        'another framework': 'other.pth is for ResNetV1c 50, and this model has CAFormer s18',
        'a backbone alone': "holds no segmentor, .* model.backbone.init_cfg=dict.type='Pretrained'",
        'half a backbone': r'other.pth does not fit CAFormer: \d+ missing: stages.3',
    }[kind]
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert re.match(f'error: .*{expected}', error), error


def test_a_backbone_is_found_in_a_whole_checkpoint() -> None:
    torch.save(dict(state_dict={f'backbone.{k}': v for k, v in CAFormer('s18').state_dict().items()}), 'whole.pth')
    backbone = CAFormer('s18', init_cfg=dict(type='Pretrained', checkpoint='whole.pth'))
    backbone.init_weights()
    given = read_checkpoint('whole.pth')['state_dict']
    assert all(torch.equal(value, given[f'backbone.{key}']) for key, value in backbone.state_dict().items())
    assert main(['weights', 'check', 'whole.pth', '--type', 'CAFormer', '--arch', 's18']) == 0


def test_a_training_on_a_folder_begins_with_the_head(capsys: pytest.CaptureFixture) -> None:
    first = fd.write(Path('first'), 4)
    quick = ['--size', '64', '--batch', '2', '--epochs', '1', '--seed', '1']
    names = ['--weights', 'none', '--classes', 'ground', 'red', 'blue', '--plan-only']
    assert train(first, *quick, *names, model='t2t_vit_7') == 0
    cfg = load_config('work/recipe/work.py')
    model = mmseg_volo.load(cfg, device='cpu', optimize=False)
    pixels = dict(mean=[1.0, 2.0, 3.0], std=[4.0, 5.0, 6.0])
    cfg.model.data_preprocessor.update(pixels)
    record = to_plain(dict(model=cfg.model, test_pipeline=cfg.test_pipeline))
    meta = {'dataset_meta': model.dataset_meta, RECORD: record}
    write_checkpoint(dict(state_dict=model.state_dict(), meta=meta), Path('own.pth'))
    second = fd.write(Path('second'), 4, fd.as_black_and_white)
    more = ['--weights', 'own.pth', '--classes', 'ground=0', 'shape=255', '--work-dir', 'tuned', '--no-check']
    capsys.readouterr()
    assert train(second, *quick, *more, '--plan-only', model='t2t_vit_7') == 0
    cfg = load_config('tuned/recipe/tuned.py').model
    assert cfg.init_cfg.checkpoint.endswith('own.pth') and 'init_cfg' not in cfg.backbone
    assert cfg.data_preprocessor.mean == pixels['mean'] and cfg.data_preprocessor.std == pixels['std']
    assert train(second, *quick, *more, model='t2t_vit_7') == 0
    said = re.search(r'INFO - (weights: .*)', capsys.readouterr().out)[1]
    rows = r'conv_seg \(3 classes there, 2 here, but for the rows of ground\)'
    assert re.search(f'own.pth; not loaded: auxiliary_head.{rows}, decode_head.{rows}$', said), said


def test_another_arch_by_its_record_is_refused(capsys: pytest.CaptureFixture) -> None:
    content = other()
    content['meta'][RECORD]['model']['backbone'] = dict(type='CAFormer', arch='s36')
    torch.save(content, 'other.pth')
    assert train(fd.write(Path('data'), 2), '--weights', 'other.pth', '--plan-only', model='caformer_s18') == 2
    error = capsys.readouterr().err
    assert re.search('--weights other.pth is for CAFormer s36, and --model caformer_s18 is CAFormer s18', error), error
