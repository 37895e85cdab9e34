"""What a training on a folder starts from: published weights, own ones, or random ones that are asked for."""

from __future__ import annotations

import re
from pathlib import Path

import folder_data as fd
import pytest
import torch
from folder_training import QUICK, apart, train  # noqa: F401
from http_files import empty_caches
from small import write_config

import mmseg_volo
from mmseg_volo.autotrain import initial_weights as weights_of_folders
from mmseg_volo.autotrain import run as start
from mmseg_volo.cli import commands as cli
from mmseg_volo.config import load_config
from mmseg_volo.io import weights as weights_of_models
from mmseg_volo.models.backbones import CoAtNet
from mmseg_volo_cli import main

FILE = 'huggingface.co/timm/caformer_s18.sail_in1k/resolve/main/model.safetensors'
NO_NETWORK = f'starts from .*{FILE} could not be fetched .*: fetch it by hand and save it as .*{FILE}.* --weights none'


@pytest.mark.parametrize(
    'model, given, said',
    [
        ('caformer_s18', [], f'--model caformer_s18 {NO_NETWORK} trains from random'),
        ('caformer_s18', ['--plan-only'], NO_NETWORK),
        ('caformer_s18', ['--resume'], NO_NETWORK),  # of nothing
        ('caformer_s18', ['--weights', 'timm://caformer_s18.sail_in1k_384'], 'sail_in1k_384.* fetch it by hand'),
        ('caformer_s18', ['--weights', 'lost.pth'], '--weights lost.pth: no file at .*lost.pth'),
        ('caformer_s18', ['--weights', 'timm://volo_d1_224.sail_in1k'], 'is for VOLO d1, and --model caformer_s18 is'),
        ('caformer_s18_ade20k', [], f'the model {NO_NETWORK} trains from random'),
        ('caformer_s18_ade20k', ['--plan-only'], NO_NETWORK),
        ('caformer_s18_ade20k', ['--weights', 'x.pth'], "is a config, which names its own; it takes 'none' only"),
        ('coatnet_0', [], 'no weights are published for --model coatnet_0: .* --weights none trains from random'),
    ],
)
def test_no_weights_end_it(
    model: str, given: list[str], said: str, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the images are read, and anything is written."""
    no_network(monkeypatch)
    monkeypatch.setattr(start, 'collect_stats', None)
    assert train(fd.write(Path('data'), 2), *given, model=model) == 2
    error = capsys.readouterr().err.strip()
    assert re.search(said, error) and len(error.splitlines()) == 1, error
    assert [path.name for path in Path().iterdir()] == ['data']


def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    empty_caches(Path.cwd(), monkeypatch)
    monkeypatch.setenv('MMSEG_VOLO_OFFLINE', '1')


@pytest.mark.parametrize('model', ['caformer_s18', 'caformer_s18_ade20k', 'coatnet_0'])
def test_random_weights_are_asked_for(
    model: str, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_network(monkeypatch)
    assert train(fd.write(Path('data'), 2), '--weights', 'none', '--plan-only', model=model) == 0
    assert re.search('weights .*none.*from scratch', capsys.readouterr().out)
    assert 'init_cfg' not in load_config('work/recipe/work.py').model.backbone


def test_a_config_without_its_weights_does_not_start(
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_network(monkeypatch)
    data = fd.write(Path('data'), 2)
    assert train(data, '--plan-only', '--weights', 'none', model='caformer_s18') == 0
    options = [
        'model.backbone.init_cfg.type=Pretrained',
        'model.backbone.init_cfg.checkpoint=timm://caformer_s18.sail_in1k',
    ]
    capsys.readouterr()
    assert main(['train', 'work/recipe/work.py', '--work-dir', 'other', '--cfg-options', *options]) == 2
    assert re.search(NO_NETWORK.replace(' --weights none', 'init_cfg=None'), capsys.readouterr().err)
    assert not Path('other').exists()


@pytest.mark.parametrize('part', ['model.init_cfg', 'model.backbone.init_cfg', 'model.decode_head.init_cfg'])
def test_the_way_out_is_of_the_part_that_is_absent(
    part: str, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_network(monkeypatch)
    for source in ('https://example.org/w.pth', 'lost.pth'):
        options = [f'{part}.type=Pretrained', f'{part}.checkpoint={source}']
        config = str(write_config(Path.cwd()))
        assert main(['train', config, '--work-dir', 'other', '--cfg-options', *options]) == 2
        error = capsys.readouterr().err
        assert re.search(f'starts from {source}: .*; --cfg-options {part}=None (trains|starts this part) from', error)
    assert not Path('other').exists()


@pytest.mark.parametrize('source', ['https://example.org/w.pth', 'timm://caformer_s18.sail_in1k', 'lost.pth'])
def test_a_checkpoint_is_fetched_before_all_else(
    source: str, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_network(monkeypatch)
    config = str(write_config(Path.cwd()))
    monkeypatch.setattr(cli, 'check_data', None)
    assert main(['train', config, '--work-dir', 'other', '--cfg-options', f'load_from={source}']) == 2
    assert re.search('^error: load_from: .*(could not be fetched|no checkpoint at)', capsys.readouterr().err)
    assert main(['test', config, source, '--work-dir', 'other']) == 2
    assert re.search('could not be fetched|no checkpoint at', capsys.readouterr().err)
    assert [*Path().iterdir()] == [Path('small.py')]


def test_a_resume_needs_no_first_weights(capsys: pytest.CaptureFixture) -> None:
    """Neither of a folder's training nor of its recipe: the checkpoint holds all."""
    start = "model['backbone']['init_cfg'] = dict(type='Pretrained', checkpoint='start.pth')\n"
    start += "model['decode_head']['init_cfg'] = [dict(type='Normal', std=0.01, override=dict(name='conv_seg')), \\\n"
    start += "    dict(type='Pretrained', prefix='head.', checkpoint='head.pth')]\n"
    config = write_config(Path.cwd(), QUICK + start)
    model = mmseg_volo.load(config, device='cpu', optimize=False)
    torch.save(model.backbone.state_dict(), 'start.pth')
    torch.save({f'head.{key}': value for key, value in model.decode_head.state_dict().items()}, 'head.pth')
    data = fd.write(Path('data'), 4)
    assert train(data, model=config) == 0
    Path('start.pth').unlink(), Path('head.pth').unlink()
    assert train(data, '--resume', model=config) == 0
    longer = ['train_cfg.max_iters=3', 'default_hooks.checkpoint.interval=1']
    recipe = ['train', 'work/recipe/work.py', '--work-dir', 'work', '--no-amp']
    capsys.readouterr()
    assert main([*recipe, '--resume', '--cfg-options', *longer]) == 0
    assert Path('work/iter_3.pth').is_file() and 'WARNING' not in capsys.readouterr().out
    moved = ['train', 'work/recipe/work.py', '--work-dir', 'elsewhere', '--no-amp', '--resume']
    assert main([*moved, '--cfg-options', *longer]) == 2  # of nothing
    assert 'starts from start.pth: no checkpoint at' in capsys.readouterr().err
    assert main([*moved, '--cfg-options', 'load_from=work/iter_3.pth', *longer]) == 0


HALF, IMAGENET = [127.5] * 3, [123.675, 116.28, 103.53]


@pytest.mark.parametrize(
    'model, source, mean, size',
    [
        ('coatnet_0_rw', None, HALF, 224),
        ('coatnet_nano_rw', None, HALF, 224),  # without a config
        ('coatnet_bn_0_rw', None, IMAGENET, 224),
        ('coatnet_rmlp_2_rw', None, HALF, 384),
        ('coatnet_rmlp_2_rw', 'timm://coatnet_rmlp_2_rw_224.sw_in12k_ft_in1k', HALF, 224),
        ('volo_d1', 'https://github.com/sail-sg/volo/releases/download/volo_1/d1_384_85.2.pth.tar', IMAGENET, 384),
        ('coatnet_nano_rw', 'mine.pth', HALF, 224),  # nobody says: as the published ones
        ('coatnet_0_rw_cityscapes', None, HALF, 224),
    ],
)
def test_recipes_say_what_the_weights_expect(
    model: str,
    source: str | None,
    mean: list[float],
    size: int,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.save(CoAtNet('nano_rw').state_dict() if source == 'mine.pth' else {}, 'mine.pth')
    for room in (weights_of_models, weights_of_folders):  # they are all here
        monkeypatch.setattr(room, 'local_file', lambda source: Path('mine.pth'))
    given = ['--weights', source] if source else []
    assert train(fd.write(Path('data'), 2), *given, '--plan-only', model=model) == 0
    said, cfg = capsys.readouterr().out, load_config('work/recipe/work.py').model
    assert cfg.data_preprocessor.mean == mean and cfg.data_preprocessor.bgr_to_rgb
    assert cfg.data_preprocessor.std == (HALF if mean == HALF else [58.395, 57.12, 57.375])
    assert cfg.backbone.get('pretrain_img_size', 224) == size
    known = source != 'mine.pth'
    assert bool(re.search(f'pixels  .*RGB, mean {mean[0]:g} .*as these weights expect', said)) == known
    assert ('does not say how its images were normalised: as for timm://coatnet_nano_rw' in said) != known
