"""What one tool writes the others read: stock configs, mmengine's own files; odd ones end in one sentence."""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.folder_training import apart  # noqa: F401
from helpers.tiny_training import predictor, train, write_config
from mmengine.logging import HistoryBuffer
from safetensors.torch import save_file

from mmseg_volo.datasets.synthetic import scenes
from mmseg_volo.engine.checkpoint_content import to_plain
from mmseg_volo.errors import UsageError
from mmseg_volo.io.checkpoint import CHECKSUM, RECORD, checksum, read_checkpoint, save_safetensors
from mmseg_volo.io.unpickling import STAND_INS
from mmseg_volo_cli import main

# as MMSegmentation's own configs are: its hooks, loop and runner, no hook of ours
STOCK = """
model['type'], model['decode_head']['type'] = 'EncoderDecoder', 'SegformerHead'
model['backbone'] = dict(type='MixVisionTransformer', in_channels=3, embed_dims=8, num_stages=4, num_layers=[1] * 4,
    num_heads=[1, 2, 4, 4], patch_sizes=[7, 3, 3, 3], sr_ratios=[8, 4, 2, 1], out_indices=(0, 1, 2, 3))
model['decode_head']['in_channels'] = [8, 16, 32, 32]
custom_hooks = [dict(type='EMAHook')]
default_hooks = dict(checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=1, save_best='mIoU'),
    visualization=dict(type='SegVisualizationHook'))
train_cfg = dict(type='IterBasedTrainLoop', max_iters=2, val_interval=2)
optim_wrapper = dict(_delete_=True, type='AmpOptimWrapper', optimizer=dict(type='SGD', lr=0.01, momentum=0.9),
    dtype='bfloat16', accumulative_counts=1)
runner_type = 'Runner'
"""


@pytest.fixture
def data() -> Path:
    return scenes.generate(Path('scenes'), 2, 1, 64, 128)


def test_a_stock_config_is_trained_resumed_and_tested(data: Path, capsys: pytest.CaptureFixture) -> None:
    config = write_config(Path.cwd(), STOCK)
    assert train(config, data, Path('work')) == 0
    content = read_checkpoint('work/iter_2.pth')
    assert content['meta'][RECORD]['model']['backbone']['type'] == 'MixVisionTransformer'
    assert content['meta'][RECORD]['test_pipeline'][0]['type'] == 'LoadImageFromFile'
    torch.load('work/iter_2.pth', weights_only=True)
    assert train(config, data, Path('work'), '--resume', 'train_cfg.max_iters=3') == 0
    said = capsys.readouterr().out
    assert re.search('loaded .*iter_2.pth', said) and 'not HistoryBuffer' not in said
    history = read_checkpoint('work/iter_3.pth')['message_hub']['log_scalars']['train/loss']['log_history']
    assert len(history) == 3
    common = ['--work-dir', 'test', '--cfg-options', f'data_root={data}']
    assert main(['test', str(config), 'work/iter_3.pth', *common]) == 0
    assert main(['predict', str(config), 'work/iter_3.pth', str(data / 'leftImg8bit/val'), '--out', 'out']) == 0


def as_mmengine_saves(content: dict[str, Any]) -> dict[str, Any]:
    """Objects and NumPy's numbers in place of what our trainings save."""
    hub, meta = content['message_hub'], content['meta']
    for name, saved in hub['log_scalars'].items():
        hub['log_scalars'][name] = HistoryBuffer(saved['log_history'].numpy(), saved['count_history'].numpy())
    hub['runtime_info']['score'], meta['seed'] = np.float64(0.5), np.int64(3)
    meta['dataset_meta']['palette'] = np.array(meta['dataset_meta']['palette'], np.uint8)
    meta['names'], meta['columns'] = np.array(['a', 'bc']), np.asfortranarray(np.arange(6).reshape(2, 3))
    del meta[RECORD]
    return content


def test_what_mmengine_saved_is_read_and_resumed(data: Path, capsys: pytest.CaptureFixture) -> None:
    config = write_config(Path.cwd())
    assert train(config, data, Path('work'), 'train_cfg.max_iters=2') == 0
    torch.save(as_mmengine_saves(read_checkpoint('work/iter_2.pth')), 'theirs.pth')
    with pytest.raises(pickle.UnpicklingError):
        torch.load('theirs.pth', weights_only=True)
    content, ours = read_checkpoint('theirs.pth'), read_checkpoint('work/iter_2.pth')
    assert (content['message_hub']['runtime_info']['score'], content['meta']['seed']) == (0.5, 3)
    assert content['meta']['names'] == ['a', 'bc'] and content['meta']['columns'].tolist() == [[0, 1, 2], [3, 4, 5]]
    for name, saved in ours['message_hub']['log_scalars'].items():
        assert torch.equal(content['message_hub']['log_scalars'][name]['log_history'], saved['log_history'])
    capsys.readouterr()
    assert train(config, data, Path('on'), '--resume', 'load_from=theirs.pth', 'train_cfg.max_iters=3') == 0
    assert 'not HistoryBuffer' not in capsys.readouterr().out
    history = read_checkpoint('on/iter_3.pth')['message_hub']['log_scalars']['train/loss']['log_history']
    assert len(history) == 3
    assert not {*STAND_INS} & {*torch.serialization.get_safe_globals()}  # they are ours alone


KEY = b'X\x01\x00\x00\x00a'  # the text 'a', as pickle writes it


def write_pickle(path: Path, value: bytes) -> None:
    """A checkpoint of one key, and its value as pickle writes it."""
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('odd/data.pkl', b'\x80\x02}' + KEY + value + b's.')
        archive.writestr('odd/version', '3\n')


class Call:
    """Calls a function when it is unpickled."""

    def __init__(self, function: Callable, *arguments: Any):
        self.call = function, arguments

    def __reduce__(self) -> tuple:
        return self.call


def test_the_stand_in_of_getattr_finds_nothing() -> None:
    """By `getattr`, which log buffers refer to, a file would reach anything."""
    torch.save(dict(w=torch.ones(1), x=Call(getattr, HistoryBuffer, '__init__')), 'a.pth')
    assert read_checkpoint('a.pth')['x'] is None
    called = b'c__builtin__\ngetattr\ncmmengine.logging.history_buffer\nHistoryBuffer\n' + KEY + b'\x86R)R'
    write_pickle(Path('b.pth'), called)
    with pytest.raises(UsageError, match='b.pth holds more than weights'):
        read_checkpoint('b.pth')
    torch.save(dict(w=torch.ones(1), x=np.array([dict()], object)), 'c.pth')
    with pytest.raises(UsageError, match="c.pth is not a readable checkpoint .a NumPy array of type 'O8'"):
        read_checkpoint('c.pth')


def test_what_is_refused_is_named_without_escapes(capsys: pytest.CaptureFixture) -> None:
    torch.save(dict(w=torch.ones(1), x=Call(eval, '1')), 'a.pth')
    assert main(['weights', 'check', 'a.pth']) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith(
        'error: a.pth holds more than weights, or is no checkpoint, and was not loaded (it asks for'
    )
    assert 'eval' in error and error.isprintable()


WEIGHT = torch.ones(8, 3, 7, 7)
ODD_WEIGHTS = {
    'complex64': WEIGHT.to(torch.complex64),
    'float8_e4m3fn': WEIGHT.to(torch.float8_e4m3fn),
    'a sparse tensor': WEIGHT.to_sparse(),
    'on the meta device': WEIGHT.to('meta'),
}
COMMANDS = {
    'check': 'weights check {path}',
    'convert': 'weights convert {path} out.safetensors',
    'predict': 'predict {path} scenes/leftImg8bit/val --out out',
    'test': 'test small.py {path} --work-dir out --cfg-options data_root=scenes',
    'begin': 'train small.py --no-amp --work-dir out --cfg-options data_root=scenes load_from={path}',
    'resume': 'train small.py --no-amp --work-dir out --resume --cfg-options data_root=scenes load_from={path}',
}


def refused(path: str, command: str, expected: str, capsys: pytest.CaptureFixture) -> None:
    capsys.readouterr()
    assert main(COMMANDS[command].format(path=path).split()) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert re.match(f'error: .*{expected}', error) and error.isprintable(), error


def trained(content: dict[str, Any]) -> dict[str, Any]:
    """With what a training leaves besides."""
    hub = dict(log_scalars={}, runtime_info={}, resumed_keys={})
    return {**content, 'meta': {**content['meta'], 'epoch': 0, 'iter': 1}, 'message_hub': hub}


def test_odd_weights(data: Path, capsys: pytest.CaptureFixture) -> None:
    content = trained(read_checkpoint(predictor(Path.cwd())))
    for name, value in ODD_WEIGHTS.items():
        content['state_dict'] = {**content['state_dict'], 'backbone.stem.conv.weight': value}
        torch.save(content, 'odd.pth')
        for command in COMMANDS if name == 'complex64' else ['check', 'convert', 'predict']:
            refused('odd.pth', command, f'odd.pth: backbone.stem.conv.weight is (of )?{name}', capsys)
    save_safetensors({'a\x1b[31m\n': ODD_WEIGHTS['float8_e4m3fn']}, 'odd.safetensors', {})
    refused('odd.safetensors', 'check', r'a\\x1b\[31m\\n is of float8', capsys)


DEEP = {  # as pickle writes them
    'lists': b']' * 9999 + b'a' * 9998,
    'tuples': b')' + b'\x85' * 9999,
    'dicts': (b'}' + KEY) * 9999 + b'}' + b's' * 9999,
    'a list that holds itself': b']q\x00h\x00a',
}


@pytest.mark.parametrize('kind', DEEP)
def test_deep_metadata(kind: str, capsys: pytest.CaptureFixture) -> None:
    write_pickle(Path('odd.pth'), DEEP[kind])
    for command in ('check', 'convert', 'predict'):
        refused('odd.pth', command, 'odd.pth is not a readable checkpoint .its content is nested more than 100', capsys)


def test_deep_metadata_in_safetensors(capsys: pytest.CaptureFixture) -> None:
    for levels, expected in ((200, 'nested more than 100 levels'), (100_000, 'maximum recursion')):
        header = {RECORD: '[' * levels + ']' * levels}
        save_file({'w': torch.ones(1)}, 'odd.safetensors', {**header, CHECKSUM: checksum({'w': torch.ones(1)}, header)})
        refused('odd.safetensors', 'check', f'odd.safetensors is not a readable .safetensors file .*{expected}', capsys)


DAMAGED = {
    'epoch': dict(meta=dict(epoch='x')),
    'seed': dict(meta=dict(seed=torch.ones(3))),
    'draws': dict(meta=dict(draws=[1])),
    'buffers': dict(message_hub=dict(log_scalars={'a': {'b': 1}})),
    'kept files': dict(message_hub=dict(runtime_info=dict(dropped_ckpt_ids=['/../../x']))),
    'another optimizer': dict(optimizer=dict(state={}, param_groups=[])),
    'schedules': dict(param_schedulers=[torch.ones(3).to_sparse()]),
}


@pytest.mark.parametrize('what', DAMAGED)
def test_damaged_states_are_not_resumed(what: str, data: Path, capsys: pytest.CaptureFixture) -> None:
    content = trained(read_checkpoint(predictor(Path.cwd())))
    for key, changes in DAMAGED[what].items():
        content[key] = {**content.get(key, {}), **changes} if key in ('meta', 'message_hub') and changes else changes
    torch.save(content, 'odd.pth')
    expected = (
        r'odd.pth(: .* is damaged| holds no training| was trained with other groups of parameters'
        r'| holds the state of another training, or a damaged one \(.+\))'
    )
    refused('odd.pth', 'resume', expected, capsys)


def test_what_configs_hold_becomes_plain() -> None:
    found = to_plain(
        {'type': torch.nn.ReLU, 'size': np.int64(3), 'names': np.array(['a']), 'path': Path('b'), 'z': {1}}
    )
    assert found == {'type': 'ReLU', 'size': 3, 'names': ['a'], 'path': 'b', 'z': [1]}
