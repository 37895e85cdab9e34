"""`mmseg-volo weights`: what is published, in the cache, in .safetensors, and whether it fits."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import pytest
import torch
from helpers.files import Trap
from helpers.http_files import empty_caches
from helpers.paths import ROOT
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

import mmseg_volo
from mmseg_volo.config import CONFIGS, load_config
from mmseg_volo.engine.checkpoint_content import to_plain
from mmseg_volo.io.checkpoint import CHECKSUM, RECORD, save_safetensors
from mmseg_volo.io.weights import read_state_dict, url_of
from mmseg_volo.models import pretrained as zoo
from mmseg_volo.models.backbones import CAFormer, T2TViT
from mmseg_volo_cli import main

TREE = 'github.com/yitu-opensource/T2T-ViT/releases/download/main/81.5_T2T_ViT_14.pth.tar'


@pytest.fixture(autouse=True)
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty caches; a mirror that is a folder, so that nothing asks the network."""
    empty_caches(tmp_path, monkeypatch)
    monkeypatch.setenv('MMSEG_VOLO_MIRROR', str(tmp_path / 'mirror'))
    monkeypatch.chdir(tmp_path)
    return tmp_path / 'mirror'


def put(path: Path, content: bytes = b'weights') -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def run(command: str, capsys: pytest.CaptureFixture) -> str:
    """What a command that succeeds prints."""
    capsys.readouterr()
    status, said = main(['weights', *command.split()]), capsys.readouterr()
    assert status == 0, said.err
    return said.out


def refused(command: str, match: str, capsys: pytest.CaptureFixture) -> None:
    assert main(['weights', *command.split()]) == 2
    error = capsys.readouterr().err.strip()
    assert re.search(match, error), error
    assert error.startswith('error: ') and len(error.splitlines()) == 1


@pytest.fixture(scope='module')
def official() -> dict[str, Tensor]:
    """What the official file of T2T-ViT-7 holds, the smallest of all."""
    weights = {k: torch.rand_like(v) for k, v in T2TViT('7').state_dict().items()}
    weights = {k: v for k, v in weights.items() if not k.startswith('out_norms.')}
    return weights | {'norm.weight': torch.ones(256), 'head.weight': torch.zeros(1000, 256)}


def test_the_script_is_the_command() -> None:
    assert "main(['weights', *sys.argv[1:]])" in (ROOT / 'tools/weights.py').read_text()


def test_all_published_weights_are_listed() -> None:
    listed = {w.checkpoint: w for w in zoo.available()}
    assert len(listed) == len(zoo.available())
    for family, archs in zoo.PUBLISHED.items():
        for arch, published in archs.items():
            if published.weights != zoo.NO_WEIGHTS:
                assert listed[published.weights][:2] == (family, arch)
    for size in (224, 448, 512):
        name = f'timm://volo_d5_{size}.sail_in1k'
        assert listed[name][:4] == ('VOLO', 'd5', size, name)
    assert listed['timm://caformer_b36.sail_in22k_ft_in1k_384'].pixels == 384
    for path in CONFIGS.glob('*.py'):
        backbone = load_config(path).model.backbone
        if 'init_cfg' in backbone:
            found = listed[backbone.init_cfg.checkpoint]
            assert (found.family, found.arch) == (backbone.type, backbone.arch)
            if backbone.type in ('VOLO', 'T2TViT', 'CoAtNet'):
                assert found.pixels == backbone.get('pretrain_img_size', 224)


def test_list_shows_what_is_here(mirror: Path, capsys: pytest.CaptureFixture) -> None:
    put(mirror / TREE, bytes(2_500_000))
    head, *lines = run('list T2TViT', capsys).splitlines()
    assert head.split() == ['MB', 'here', 'pixels', 'type', 'arch', 'normalised', 'licence', 'checkpoint']
    assert len(lines) == len(zoo.ARCHS['T2TViT'])
    assert {tuple(line.split()[4:6]) for line in lines} == {('ImageNet', 'bsd-3-clause-clear')}
    (line,) = run('list *coatnet_0_rw*', capsys).splitlines()[1:]
    assert line.split()[4:6] == ['127.5/127.5', 'apache-2.0']
    here = {line.split()[3]: line.split()[0] for line in lines}
    assert here.pop('14') == '2.5' and set(here.values()) == {'-'}
    assert len(run('list *caformer*384', capsys).splitlines()) == 1 + 8
    refused('list resnet', "no published weights match 'resnet'", capsys)


def test_fetch_takes_names_addresses_and_configs(mirror: Path, capsys: pytest.CaptureFixture) -> None:
    hub = put(mirror / 'huggingface.co/timm/volo_d1_384.sail_in1k/resolve/main/model.safetensors')
    t2t = put(mirror / TREE)
    for name in (
        'volo_d1_384.sail_in1k',
        'timm://volo_d1_384.sail_in1k',
        'volo_d1_ade20k',
        'configs/volo_d1_ade20k.py',
    ):
        assert run(f'fetch {name}', capsys).split() == [str(hub)]
    assert run(f'fetch t2t_vit_14_ade20k volo_d1_ade20k https://{TREE}', capsys).split() == [str(t2t), str(hub)]
    put(Path('mine.py'), b"model = dict(backbone=dict(init_cfg=dict(type='Pretrained', checkpoint='mine.pth')))")
    refused('fetch mine.py', 'no checkpoint at .*/mine.pth, which mine.py names', capsys)
    put(Path('mine.pth'))
    assert run(f'fetch mine.py https://{TREE}', capsys).split() == ['mine.pth', str(t2t)]


@pytest.mark.parametrize(
    'name, match',
    [
        ('volo_d9_224.sail_in1k', 'no such model; it has .*volo_d1'),
        ('volo_d1_224.nobody', 'no such weights; it has .*volo_d1_224.sail_in1k'),
        ('volo_d4_citiscapes', 'did you mean volo_d4_cityscapes'),
        ('volo_demo', 'volo_demo starts from random weights'),
        ('http://example.org/w.pth', 'got http://example.org/w.pth'),
    ],
)
def test_fetch_finds_wrong_names_first(name: str, match: str, capsys: pytest.CaptureFixture) -> None:
    """Before the missing file of the first name is looked for."""
    refused(f'fetch https://{TREE} {name}', match, capsys)


LAYOUTS = {
    'raw.pth': lambda w: w,
    'wrapped.pth.tar': lambda w: {'epoch': 3, 'args': argparse.Namespace(lr=1e-3), 'state_dict': w},
    'ema.pth': lambda w: {
        'state_dict': {k: v + 1 for k, v in w.items()},
        'state_dict_ema': {f'module.{k}': v for k, v in w.items()},
    },
}


@pytest.mark.parametrize('name', LAYOUTS)
def test_convert_keeps_every_value(name: str, capsys: pytest.CaptureFixture) -> None:
    base = torch.randn(4, 6)
    weights = {'a': base, 'view': base[1], 'turned': base.T, 'half': base.half(), 'count': torch.tensor(7)}
    torch.save(LAYOUTS[name](weights), name)
    assert run(f'convert {name} out.safetensors', capsys).startswith('out.safetensors: 5 tensors, ')
    found = load_file('out.safetensors')
    assert found.keys() == weights.keys()
    for key, value in weights.items():
        assert torch.equal(found[key], value) and found[key].dtype == value.dtype
    with safe_open('out.safetensors', 'pt') as file:
        assert {**file.metadata(), CHECKSUM: ''} == {'format': 'pt', 'source': name, RECORD: '{}', CHECKSUM: ''}
    assert [p.name for p in Path().glob('*out*')] + [p.name for p in Path().glob('.*')] == ['out.safetensors']


def test_convert_to_our_keys(official: dict[str, Tensor], capsys: pytest.CaptureFixture) -> None:
    torch.save({'state_dict': official}, 'official.pth.tar')
    run('convert official.pth.tar ours.safetensors --type T2TViT --arch 7', capsys)
    assert not {'norm.weight', 'head.weight'} & load_file('ours.safetensors').keys()
    for out_norm in (True, False):
        models = [
            T2TViT('7', out_norm=out_norm, init_cfg=dict(type='Pretrained', checkpoint=source))
            for source in ('official.pth.tar', 'ours.safetensors')
        ]
        for model in models:
            model.init_weights()
        for key, value in models[0].state_dict().items():
            assert torch.equal(models[1].state_dict()[key], value)
    run('check ours.safetensors --type T2TViT --arch 7', capsys)


def test_convert_changes_layouts(capsys: pytest.CaptureFixture) -> None:
    import timm

    torch.save(timm.create_model('caformer_s18').state_dict(), 'timm.pth')
    run('convert timm.pth ours.safetensors --config caformer_s18_ade20k', capsys)
    ours = CAFormer('s18', init_cfg=dict(type='Pretrained', checkpoint='timm.pth'))
    ours.init_weights()
    expected = {k: v for k, v in ours.state_dict().items() if not k.startswith('out_norms.')}
    found = load_file('ours.safetensors')
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[k], v) for k, v in expected.items())
    with safe_open('ours.safetensors', 'pt') as file:
        said = {key: value for key, value in file.metadata().items() if not key.startswith(RECORD)}
        assert said == {'format': 'pt', 'source': 'timm.pth', 'type': 'CAFormer', 'arch': 's18'}


@pytest.fixture
def trained() -> torch.nn.Module:
    """A segmentor, and checkpoint.pth, as training leaves it."""
    model = mmseg_volo.load('volo_demo', device='cpu')
    cfg = load_config('volo_demo')
    meta = {RECORD: to_plain({key: cfg[key] for key in ('model', 'test_pipeline')}), 'dataset_meta': model.dataset_meta}
    torch.save({'state_dict': model.state_dict(), 'optimizer': {}, 'meta': to_plain(meta)}, 'checkpoint.pth')
    return model


def test_our_own_checkpoints(trained: torch.nn.Module, capsys: pytest.CaptureFixture) -> None:
    run('convert checkpoint.pth all.safetensors', capsys)
    for arguments in (('volo_demo', 'all.safetensors'), ('all.safetensors',)):
        again = mmseg_volo.load(*arguments, device='cpu')
        for key, value in trained.state_dict().items():
            assert torch.equal(again.state_dict()[key], value)
        assert again.dataset_meta == {key: trained.dataset_meta[key] for key in again.dataset_meta}
        assert again.cfg.test_pipeline == trained.cfg.test_pipeline  # tuples too
    run('convert checkpoint.pth backbone.safetensors --config volo_demo --prefix backbone.', capsys)
    assert load_file('backbone.safetensors').keys() == trained.backbone.state_dict().keys()  # with its trained norms
    for command in ('checkpoint.pth', 'checkpoint.pth volo_demo', 'all.safetensors volo_demo', 'all.safetensors'):
        assert ' fits the model ' in run(f'check {command}', capsys)
    assert ' fits VOLO ' in run('check backbone.safetensors volo_demo', capsys)
    refused('check backbone.safetensors', 'does not describe its model: give a config', capsys)
    refused('check all.safetensors volo_camvid', 'does not fit StreamingEncoderDecoder', capsys)


def test_check_names_what_is_wrong(official: dict[str, Tensor], capsys: pytest.CaptureFixture) -> None:
    torch.save(official, 'good.pth')
    assert 'good.pth fits T2TViT 7: ' in run('check good.pth --type T2TViT --arch 7', capsys)
    refused(
        'check good.pth t2t_vit_14_ade20k',
        'does not fit T2TViT: .* missing: .* shape: ',
        capsys,
    )
    refused(
        'check good.pth --type T2TViT --arch 7 --img-size 384',
        'shape: pos_embed .*; set pretrain_img_size',
        capsys,
    )
    refused('check good.pth --type CAFormer --arch s18', 'does not fit CAFormer: .* missing: .*unknown: ', capsys)
    torch.save({**official, 'pos_embed': official['pos_embed'] * float('nan')}, 'nan.pth')
    refused('check nan.pth --type T2TViT --arch 7', '1 tensors contain NaN or infinity: pos_embed', capsys)


def test_nothing_is_executed_or_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    torch.save({'w': torch.zeros(1), 'extra': Trap(tmp_path / 'trace')}, 'trap.pth')
    torch.save({'w': torch.zeros(1)}, 'good.pth')
    for command in ('check trap.pth --type VOLO --arch d1', 'convert trap.pth out.safetensors'):
        refused(command, 'trap.pth holds more than weights', capsys)
    assert not (tmp_path / 'trace').exists() and not Path('out.safetensors').exists()
    put(Path('there.safetensors'))
    refused('convert good.pth there.safetensors', 'exists: choose another name, or replace it with --force', capsys)
    assert Path('there.safetensors').read_bytes() == b'weights'
    run('convert good.pth there.safetensors --force', capsys)
    assert torch.equal(load_file('there.safetensors')['w'], torch.zeros(1))


@pytest.mark.parametrize(
    'command, match',
    [
        ('convert nowhere.pth out.safetensors', 'no checkpoint at .*nowhere.pth'),
        ('convert good.pth out.pth', 'ends in .safetensors, got out.pth'),
        ('convert good.pth nowhere/out.safetensors', 'there is no folder .*/nowhere'),
        ('convert good.pth out.safetensors --type VOLO', '--type and --arch go together'),
        ('convert good.pth out.safetensors --type VOLO --arch d9', "arch must be one of .*got 'd9'"),
        ('convert good.pth out.safetensors --type VOLO --arch d1', 'good.pth does not fit VOLO'),
        ('convert good.pth out.safetensors --prefix head.', "no key starts with 'head.'"),
        (
            'check good.pth volo_demo --type VOLO --arch d1',
            'expected either a config, or --type and --arch, got volo_demo',
        ),
        ('check good.pth resnet.py', "ResNet is not a backbone of mmseg_volo|'ResNet'"),
    ],
)
def test_bad_input_is_one_sentence(command: str, match: str, capsys: pytest.CaptureFixture) -> None:
    torch.save({'w': torch.zeros(1)}, 'good.pth')
    put(Path('resnet.py'), b"model = dict(backbone=dict(type='ResNet', depth=18))")
    refused(command, match, capsys)
    assert not list(Path().rglob('*.safetensors')) and not list(Path().rglob('*.part'))


def test_a_failed_write_leaves_the_old_file(monkeypatch: pytest.MonkeyPatch) -> None:
    target = put(Path('out.safetensors'))
    monkeypatch.setattr('os.fsync', lambda _: (_ for _ in ()).throw(OSError(28, 'No space left on device')))
    with pytest.raises(mmseg_volo.errors.UsageError, match='out.safetensors cannot be written .*No space left'):
        save_safetensors({'w': torch.zeros(1)}, target, {})
    assert [p.read_bytes() for p in Path().glob('*out*')] == [b'weights'] and not list(Path().glob('.*'))


def test_sources_and_addresses() -> None:
    assert url_of('timm://volo_d1_224') == url_of('timm://volo_d1_224.sail_in1k')
    assert url_of('a/b.pth') is None and url_of(f'https://{TREE}') == f'https://{TREE}'
    with pytest.raises(mmseg_volo.errors.UsageError, match='mirror.* lacks https://huggingface.co/timm/volo_d1_224'):
        read_state_dict('timm://volo_d1_224.sail_in1k')
