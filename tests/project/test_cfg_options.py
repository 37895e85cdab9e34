"""`--cfg-options`: what may stand there, and keys that nobody reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mmseg_volo.cfg_options import parse
from mmseg_volo.config import load_config
from mmseg_volo.errors import UsageError
from mmseg_volo_cli import main

VALUES = {
    '3': 3,
    '-1e-3': -0.001,
    'true': True,
    'None': None,
    'a': 'a',
    '': '',
    '[]': [],
    '()': (),
    '1,2': [1, 2],
    '[1,2]': [1, 2],
    '(1, 2)': (1, 2),
    '[(1, 2), [a, b], c]': [(1, 2), ['a', 'b'], 'c'],
    '(1,2),(3,4)': [(1, 2), (3, 4)],
    "['mIoU','mDice']": ['mIoU', 'mDice'],
    'my data (2)/x': 'my data (2)/x',
    "'a, b'": 'a, b',
    'f(1,2)': 'f(1,2)',
    'https://example.org/?a=b': 'https://example.org/?a=b',
}


LABELS = dict(type='LoadAnnotations', reduce_zero_label=True)  # mmseg's takes it, and mmcv's of the same name not


@pytest.mark.parametrize('text', VALUES)
def test_values(text: str) -> None:
    assert parse([f'a.b={text}']) == {'a.b': VALUES[text]}


@pytest.mark.parametrize(
    ('pair', 'said'),
    {
        "loss=dict(type='DiceLoss', eps=1e-3)": r'with dots, loss._delete_=True loss.type=DiceLoss loss.eps=0.001$',
        "loss=[dict(type='DiceLoss')]": r'with dots, loss._delete_=True loss.type=DiceLoss',
        "a={'x.y': [1, 2]}": r'with dots, a._delete_=True a.x.y=\[1, 2\]',
        'a={1, 2}': r'with dots, a.KEY=VALUE',
        'a=dict(': r'with dots, a.KEY=VALUE',
        "custom_hooks=[dict(type='EMAHook')]": 'write default_hooks.ema.type=EMAHook, which adds a hook$',
        'custom_hooks=[{}]': 'write default_hooks.NAME.type=HOOK',
        'a=lambda x: x': 'expected a number, a word or a list',
        'a=set([1])': 'expected a number, a word or a list',
        'a=[1,2': 'brackets of .* do not match',
        'a=(1,2]': 'brackets of .* do not match',
        'a=1),(2': 'brackets of .* do not match',
        'a': 'takes KEY=VALUE',
        '=1': 'takes KEY=VALUE',
    }.items(),
)
def test_what_is_no_value(pair: str, said: str, capsys: pytest.CaptureFixture) -> None:
    assert main(['train', 'volo_demo', '--cfg-options', pair]) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    with pytest.raises(UsageError, match=said):
        parse([pair])


@pytest.mark.parametrize(
    ('option', 'said'),
    {
        'train_cfg.max_iter=5': "train_cfg has no 'max_iter'; did you mean max_iters",
        'max_iters=5': 'max_iters is a variable that volo_demo.py has already used: set train_cfg.max_iters$',
        'crop_size=(32,32)': 'set model.data_preprocessor.size train_dataloader.dataset.pipeline.0.crop_size$',
        'cfg.x=1': 'did you mean val_cfg or env_cfg',
        'model.decode_head.loss_decode.class_weigths=[1,2]': 'did you mean class_weight',
        'train_pipeline.0.crop_size=(32,32)': 'set train_dataloader.dataset.pipeline.N.KEY',
        'model.decode_hed.num_classes=3': 'did you mean decode_head',
        'model.test_cfg.mod=slide': 'did you mean mode',
        'train_dataloader.num_worker=1': 'did you mean num_workers',
        'train_dataloader.dataset.pipeline.9.x=1': "is a list of 3, counted from 0, and has no '9'",
        'train_dataloader.dataset.pipeline.x=1': "is a list of 3, counted from 0, and has no 'x'",
        'train_dataloader.dataset.pipeline.0.crop=1': "pipeline.0 has no 'crop'",
        'optim_wrapper.optimizer.learning_rate=1': "has no 'learning_rate': it takes .* lr, ",
        'default_hooks.checkpoint.intervall=3': 'did you mean interval',
        'param_scheduler.0.ends=3': 'did you mean end',
        'train_cfg.max_iters.x=3': "train_cfg.max_iters is 500, which has no 'x'",
        'randomness.sed=3': 'did you mean seed',
        'model..x=3': 'names between the dots',
    }.items(),
)
def test_keys_that_nothing_reads(option: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        load_config('volo_demo', parse([option]))


@pytest.mark.parametrize(
    ('option', 'place', 'value'),
    [
        ('model.backbone.drop_path_rate=0.1', 'model.backbone.drop_path_rate', 0.1),
        ('model.decode_head.loss_decode.type=DiceLoss', 'model.decode_head.loss_decode.type', 'DiceLoss'),
        ('param_scheduler.1.convert_to_iter_based=True', 'param_scheduler.1.convert_to_iter_based', True),
        ('default_hooks.early.type=EarlyStoppingHook', 'default_hooks.early.type', 'EarlyStoppingHook'),
        ('optim_wrapper.accumulative_counts=2', 'optim_wrapper.accumulative_counts', 2),
        ('model.test_cfg.stride=(8,8)', 'model.test_cfg.stride', (8, 8)),
        ('val_dataloader.dataset.indices=3', 'val_dataloader.dataset.indices', 3),
        ('randomness.seed=3', 'randomness.seed', 3),
        ('model.decode_head.loss_decode.class_weight=[1,2]', 'model.decode_head.loss_decode.class_weight', [1, 2]),
        ('val_dataloader.dataset.pipeline.1.reduce_zero_label=True', 'val_dataloader.dataset.pipeline.1', LABELS),
        ('train_dataloader.dataset.reduce_zero_label=True', 'train_dataloader.dataset.reduce_zero_label', True),
    ],
)
def test_keys_that_a_config_lacks_and_a_class_takes(option: str, place: str, value: Any) -> None:
    found = load_config('volo_demo', parse([option]))
    for name in place.split('.'):
        found = found[int(name)] if name.isdecimal() else found[name]
    assert found == value


def test_a_key_leads_through_none(tmp_path: Path) -> None:
    config = tmp_path / 'stock.py'
    config.write_text('optim_wrapper = dict(optimizer=dict(type="SGD", lr=0.1), clip_grad=None)\nvisualizer = None\n')
    found = load_config(config, parse(['optim_wrapper.clip_grad.max_norm=1', 'visualizer.type=SegLocalVisualizer']))
    assert found.optim_wrapper.clip_grad == dict(max_norm=1)
    assert found.visualizer == dict(type='SegLocalVisualizer')


def test_a_dict_is_replaced_with_dots() -> None:
    options = ['_delete_=True', 'type=DiceLoss', 'loss_weight=0.5']
    found = load_config('volo_demo', parse([f'model.decode_head.loss_decode.{option}' for option in options]))
    assert found.model.decode_head.loss_decode == dict(type='DiceLoss', loss_weight=0.5)
