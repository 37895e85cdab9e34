"""One harmless proof per way into a checkpoint: nothing in it is executed, no address in it is followed."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.files import Trap
from helpers.http_files import File, Server, empty_caches, serve
from helpers.originals import needs_onedl
from helpers.resuming import train, write_config
from mmengine.config import Config
from mmengine.registry import RUNNERS
from mmengine.runner import CheckpointLoader
from mmseg.apis import init_model

import mmseg_volo
from mmseg_volo.config import load_config
from mmseg_volo.datasets.synthetic import scenes
from mmseg_volo.errors import UsageError
from mmseg_volo.io.checkpoint import RECORD, read_checkpoint
from mmseg_volo_cli import main

REFUSAL = 'holds more than weights'
STILL = ['optim_wrapper.optimizer.lr=1e-30', 'optim_wrapper.optimizer.adamw_lr=1e-30']


@pytest.fixture(scope='module', autouse=True)
def quick() -> Iterator[None]:
    """Config files are written without layout, which takes most of the time of a training's start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Config, 'pretty_text', property(lambda cfg: repr(cfg.to_dict())))
        yield


@pytest.fixture(scope='module')
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return scenes.generate(tmp_path_factory.mktemp('data') / 'scenes', 4, 1, 64, 128)


@pytest.fixture(scope='module')
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('trained')
    assert train(write_config(folder, iterations=1, validation=9), data, folder / 'work') == 0
    return folder / 'work/iter_1.pth'


@pytest.fixture
def trap(trained: Path, tmp_path: Path) -> Iterator[Path]:
    """A checkpoint that fits and makes a folder when it is unpickled, or when config text in it is executed."""
    content = read_checkpoint(trained)
    torch.save({**content, 'extra': Trap(tmp_path / 'trace')}, tmp_path / 'trap.pth')
    yield tmp_path / 'trap.pth'
    assert not (tmp_path / 'trace').exists()


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return write_config(tmp_path, iterations=2, validation=9)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    empty_caches(tmp_path, monkeypatch)
    with serve() as server:
        yield server


def refused(capsys: pytest.CaptureFixture, match: str) -> None:
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith('error: ') and re.search(match, error), error


@pytest.mark.parametrize(
    'load',
    [
        pytest.param(
            CheckpointLoader.load_checkpoint,
            marks=needs_onedl('mmengine 0.10.7 leaves it to torch, which refuses by itself since 2.6'),
            id='mmengine',
        ),
        pytest.param(partial(torch.load, weights_only=False), id='torch'),
    ],
)
def test_the_trap_springs_where_a_file_is_unpickled(load: Callable[[str], Any], trained: Path, tmp_path: Path) -> None:
    torch.save({**read_checkpoint(trained), 'extra': Trap(tmp_path / 'trace')}, tmp_path / 'trap.pth')
    load(str(tmp_path / 'trap.pth'))
    assert (tmp_path / 'trace').exists()


# what follows `train CONFIG`; `parts` are those of the whole model, of heads, and what mmengine takes as the same
TRAINS = {
    'load_from': ['load_from={trap}'],
    'resume': ['resume=True', 'load_from={trap}'],
    'init_cfg of the backbone': [
        'model.backbone.init_cfg.type=Pretrained',
        'model.backbone.init_cfg.checkpoint={trap}',
    ],
    'init_cfg of the head': [
        'model.decode_head.init_cfg.type=Pretrained',
        'model.decode_head.init_cfg.checkpoint={trap}',
        'model.decode_head.init_cfg.prefix=decode_head.',
    ],
    'init_cfg by another name': [
        'model.decode_head.init_cfg.type=mmengine.Pretrained',
        'model.decode_head.init_cfg.checkpoint={trap}',
    ],
    'init_cfg as an override': [
        'model.decode_head.init_cfg.type=Constant',
        'model.decode_head.init_cfg.val=0',
        'model.decode_head.init_cfg.override.type=Pretrained',
        'model.decode_head.init_cfg.override.name=conv_seg',
        'model.decode_head.init_cfg.override.checkpoint={trap}',
    ],
    'init_cfg of the whole model': ['model.init_cfg.type=Pretrained', 'model.init_cfg.checkpoint={trap}'],
}


@pytest.mark.parametrize('way', TRAINS)
def test_training(way: str, trap: Path, config: Path, data: Path, capsys: pytest.CaptureFixture) -> None:
    options = [option.format(trap=trap) for option in TRAINS[way]]
    assert train(config, data, trap.parent / 'work', '--cfg-options', *options) == 2
    refused(capsys, f'trap.pth {REFUSAL}')


@pytest.mark.parametrize('way', ['load_from', 'init_cfg of the head'])
def test_the_tools_of_mmseg_with_our_configs(way: str, trap: Path, config: Path, data: Path) -> None:
    cfg = load_config(config, {'data_root': str(data), 'work_dir': str(trap.parent / 'work')})
    cfg.merge_from_dict(dict(option.format(trap=trap).split('=') for option in TRAINS[way]))
    with pytest.raises(UsageError, match=REFUSAL):
        RUNNERS.build(cfg).train()  # what its train.py does


def test_what_starts_from_plain_data_is_loaded(trained: Path, config: Path, data: Path, tmp_path: Path) -> None:
    for way in ('init_cfg of the head', 'init_cfg of the whole model'):
        work = tmp_path / way
        options = [*[option.format(trap=trained) for option in TRAINS[way]], *STILL]
        assert train(config, data, work, '--cfg-options', *options, 'train_cfg.max_iters=1') == 0
        start, end = (read_checkpoint(path)['state_dict'] for path in (trained, work / 'iter_1.pth'))
        assert torch.equal(start['decode_head.conv_seg.weight'], end['decode_head.conv_seg.weight'])


def test_resume_from_a_work_dir(trap: Path, config: Path, data: Path, capsys: pytest.CaptureFixture) -> None:
    (trap.parent / 'work').mkdir()
    shutil.copy(trap, trap.parent / 'work/iter_9.pth')
    assert train(config, data, trap.parent / 'work', '--resume') == 2
    refused(capsys, f'iter_9.pth {REFUSAL}')


COMMANDS = {
    'test': 'test {config} {trap} --work-dir {out} --cfg-options data_root={data}',
    'predict': 'predict {trap} {data}/leftImg8bit/val --out {out}',
    'predict with a config': 'predict {config} {trap} {data}/leftImg8bit/val --out {out}',
    'weights check': 'weights check {trap}',
    'weights convert': 'weights convert {trap} {out}.safetensors',
}


@pytest.mark.parametrize('command', COMMANDS)
def test_commands(command: str, trap: Path, config: Path, data: Path, capsys: pytest.CaptureFixture) -> None:
    arguments = COMMANDS[command].format(config=config, trap=trap, data=data, out=trap.parent / 'out')
    assert main(arguments.split()) == 2
    refused(capsys, f'trap.pth {REFUSAL}')


def test_functions(trap: Path, config: Path) -> None:
    for arguments in ((trap,), (config, trap)):
        with pytest.raises(UsageError, match=REFUSAL):
            mmseg_volo.load(*arguments)


def test_mmsegs_init_model_by_our_address(trap: Path, trained: Path, config: Path) -> None:
    with pytest.raises(UsageError, match=REFUSAL):
        init_model(str(config), f'mmseg_volo://{trap}', device='cpu')
    model = init_model(str(config), f'mmseg_volo://{trained}', device='cpu')
    assert model.dataset_meta['classes'] == scenes.CLASSES
    for key, value in read_checkpoint(trained)['state_dict'].items():
        assert torch.equal(model.state_dict()[key], value)


@pytest.mark.parametrize('command', ['test', 'predict', 'resume', 'load', 'init_model'])
def test_config_text(command: str, trained: Path, config: Path, data: Path, tmp_path: Path) -> None:
    content, text = read_checkpoint(trained), f'import os; os.mkdir({str(tmp_path / "trace")!r})'
    content['meta'] |= {'config': text, 'cfg': text}
    content['message_hub']['runtime_info']['cfg'] = text
    torch.save(content, tmp_path / 'text.pth')
    if command == 'load':
        mmseg_volo.load(tmp_path / 'text.pth')
    elif command == 'init_model':
        init_model(str(config), f'mmseg_volo://{tmp_path}/text.pth', device='cpu')
    elif command == 'resume':
        assert (
            train(config, data, tmp_path / 'work', '--resume', '--cfg-options', f'load_from={tmp_path}/text.pth') == 0
        )
    else:
        arguments = COMMANDS[command].format(config=config, trap=tmp_path / 'text.pth', data=data, out=tmp_path / 'out')
        assert main(arguments.split()) == 0
    assert not (tmp_path / 'trace').exists()


def test_the_one_door(trained: Path, config: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    torch.save({**read_checkpoint(trained), 'extra': Trap(tmp_path / 'trace')}, tmp_path / 'trap.pth')
    convert = ['weights', 'convert', str(tmp_path / 'trap.pth'), str(tmp_path / 'out.safetensors')]
    assert main(convert) == 2 and not (tmp_path / 'trace').exists()
    assert 'mmseg-volo weights convert --help' in capsys.readouterr().err
    assert main([*convert, '--trust-pickle']) == 0
    assert f'--trust-pickle: any code in {tmp_path}/trap.pth runs now' in capsys.readouterr().err
    assert (tmp_path / 'trace').exists()  # as it says
    shutil.rmtree(tmp_path / 'trace', ignore_errors=True)
    found = mmseg_volo.load(tmp_path / 'out.safetensors').state_dict()
    assert all(torch.equal(found[key], value) for key, value in read_checkpoint(trained)['state_dict'].items())
    assert main(['weights', 'convert', 'https://example.org/w.pth', f'{tmp_path}/o.safetensors', '--trust-pickle']) == 2
    refused(capsys, '--trust-pickle takes a local file')


def test_plain_http_is_refused_everywhere(config: Path, data: Path, tmp_path: Path, capsys) -> None:
    url = 'http://example.org/iter_9.pth'
    for command in COMMANDS.values():
        arguments = command.format(config=config, trap=url, data=data, out=tmp_path / 'out').split()
        assert main(arguments) == 2
        refused(capsys, f'https://HOST/PATH, got {url}')
    for way in ('load_from', 'init_cfg of the backbone', 'init_cfg of the head'):
        options = [option.format(trap=url) for option in TRAINS[way]]
        assert train(config, data, tmp_path / 'work', '--cfg-options', *options) == 2
        refused(capsys, f'https://HOST/PATH, got {url}')


def test_an_address_in_last_checkpoint_is_not_followed(
    server: Server, trained: Path, config: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    server.files['/iter_9.pth'] = File(trained.read_bytes())
    (tmp_path / 'work').mkdir()
    (tmp_path / 'work/last_checkpoint').write_text(f'{server.url}/iter_9.pth')
    assert train(config, data, tmp_path / 'work', '--resume') == 0
    cfg = load_config(config, {'data_root': str(data), 'work_dir': str(tmp_path / 'empty'), 'resume': True})
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'empty/last_checkpoint').write_text(f'{server.url}/iter_9.pth')
    with pytest.raises(UsageError, match='without a checkpoint'):
        RUNNERS.build(cfg).test()
    assert 'has no checkpoint' in capsys.readouterr().out and not server.requests


def test_checkpoints_by_their_address(server: Server, trained: Path, config: Path, data: Path, tmp_path: Path) -> None:
    """Files of one name at different addresses are different files."""
    content = read_checkpoint(trained)
    for i in (1, 2):
        weights = {**content['state_dict'], 'decode_head.conv_seg.bias': torch.full((10,), float(i))}
        torch.save({**content, 'state_dict': weights}, tmp_path / 'w.pth')
        server.files[f'/{i}/w.pth'] = File((tmp_path / 'w.pth').read_bytes())
    for i in (1, 2):
        for arguments in ((f'{server.url}/{i}/w.pth',), (config, f'{server.url}/{i}/w.pth')):
            assert (mmseg_volo.load(*arguments).decode_head.conv_seg.bias == i).all()
    url, more = f'{server.url}/2/w.pth', ['train_cfg.max_iters=1']
    assert main(COMMANDS['test'].format(config=config, trap=url, data=data, out=tmp_path / 'test').split()) == 0
    assert main(COMMANDS['predict'].format(trap=url, data=data, out=tmp_path / 'predict').split()) == 0
    assert train(config, data, tmp_path / 'work', '--cfg-options', f'load_from={url}', *more) == 0
    assert len(server.requests) == 2


def test_a_wrong_hash_in_a_name_is_found(server: Server, trained: Path, tmp_path: Path) -> None:
    digest = hashlib.sha256(trained.read_bytes()).hexdigest()
    for name in (f'/w-{digest[:8]}.pth', f'/w-{digest[1:9]}.pth'):
        server.files[name] = File(trained.read_bytes())
    mmseg_volo.load(f'{server.url}/w-{digest[:8]}.pth')
    with pytest.raises(UsageError, match=f'SHA-256 should begin with {digest[1:9]}'):
        mmseg_volo.load(f'{server.url}/w-{digest[1:9]}.pth')


def test_a_published_file_knows_its_model(trained: Path, config: Path, data: Path, tmp_path: Path) -> None:
    path = tmp_path / 'model.safetensors'
    assert main(['weights', 'convert', str(trained), str(path)]) == 0
    model, other = mmseg_volo.load(path), mmseg_volo.load(trained)
    assert model.dataset_meta['classes'] == scenes.CLASSES
    for image in data.glob('leftImg8bit/val/*/*.png'):
        assert (mmseg_volo.predict(model, image).mask == mmseg_volo.predict(other, image).mask).all()
    for command in ('test', 'predict', 'predict with a config'):
        arguments = COMMANDS[command].format(config=config, trap=path, data=data, out=tmp_path / command[:7])
        assert main(arguments.split()) == 0
    assert read_checkpoint(path)['meta'].keys() == {RECORD, 'dataset_meta'}
    assert 'Pretrained' not in str(read_checkpoint(path)['meta']) and str(data) not in str(
        read_checkpoint(path)['meta']
    )


def test_a_training_does_not_go_on_from_weights_alone(trained: Path, config: Path, data: Path, tmp_path: Path, capsys):
    path = tmp_path / 'model.safetensors'
    assert main(['weights', 'convert', str(trained), str(path)]) == 0
    assert train(config, data, tmp_path / 'work', '--resume', '--cfg-options', f'load_from={path}') == 2
    refused(capsys, 'model.safetensors holds no training that could be resumed')
    assert train(config, data, tmp_path / 'work', '--cfg-options', f'load_from={path}') == 0
