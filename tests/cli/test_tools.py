"""The tools as a user calls them, on real files."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from helpers.files import Trap
from helpers.paths import ROOT
from helpers.tools import SHORT, printed, train_options

import mmseg_volo
from mmseg_volo.datasets.synthetic import scenes
from mmseg_volo_cli import main


@pytest.fixture(scope='module')
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return scenes.generate(tmp_path_factory.mktemp('data') / 'scenes', 4, 2, 64, 128)


@pytest.fixture(scope='module')
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """(work dir of a training of four iterations by `tools/train.py` in a process of its own, what it printed)."""
    work = tmp_path_factory.mktemp('work')
    command = [sys.executable, str(ROOT / 'tools/train.py'), 'volo_demo', *train_options(data, work)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, 'CUDA_VISIBLE_DEVICES': ''})
    assert done.returncode == 0, done.stderr
    return work, done.stdout + done.stderr


def test_train_starts_quietly(trained: tuple[Path, str]) -> None:
    start = trained[1].split('Iter(train)')[0].splitlines()
    assert len(start) < 30
    assert not [line for line in trained[1].splitlines() if re.search('warn|deprecat|fail', line, re.I)], trained[1]


def test_train_writes_what_it_promises(trained: tuple[Path, str]) -> None:
    work, said = trained
    assert (work / 'iter_4.pth').is_file() and (work / 'last_checkpoint').is_file()
    assert (work / 'volo_demo.py').is_file()
    assert 'mIoU' in said
    (log,) = work.glob('*/*.log')
    assert 'System environment' in log.read_text()  # the details are there, not on the console


def test_checkpoint_is_plain_data(trained: tuple[Path, str]) -> None:
    checkpoint = torch.load(trained[0] / 'iter_4.pth', weights_only=True)
    assert checkpoint['meta']['iter'] == 4
    assert checkpoint['meta']['dataset_meta']['classes'] == scenes.CLASSES


def test_resume_goes_on_where_it_stopped(
    data: Path, trained: tuple[Path, str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / 'iter_2.pth').write_bytes((trained[0] / 'iter_2.pth').read_bytes())
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'iter_2.pth'))
    assert main(['train', 'volo_demo', '--resume', *train_options(data, tmp_path)]) == 0
    assert re.findall(r'Iter\(train\) *\[(\d)/4\]', printed(capsys)) == ['3', '4']
    first, second = (torch.load(w / 'iter_4.pth', weights_only=True) for w in (trained[0], tmp_path))
    assert first['message_hub']['log_scalars'].keys() == second['message_hub']['log_scalars'].keys()
    assert len(second['message_hub']['log_scalars']['train/loss']['log_history']) == 4


def test_amp_on_the_cpu(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if torch.cuda.is_available():
        pytest.skip('this machine has a GPU, --amp takes that')
    dtypes = set()
    forward = mmseg_volo.models.backbones.VOLO.forward

    def spy(self: torch.nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        dtypes.add((self.training, self.patch_embed.conv[0](x).dtype))
        return forward(self, x)

    monkeypatch.setattr(mmseg_volo.models.backbones.VOLO, 'forward', spy)
    assert main(['train', 'volo_demo', '--amp', *train_options(data, tmp_path), 'train_cfg.max_iters=1']) == 0
    assert (True, torch.bfloat16) in dtypes


def test_test_scores_and_draws(
    data: Path, trained: tuple[Path, str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    checkpoint, pictures, masks = str(trained[0] / 'iter_4.pth'), tmp_path / 'pictures', tmp_path / 'masks'
    wanted = ['--show-dir', str(pictures), '--out', str(masks), *train_options(data, tmp_path / 'w')]
    assert main(['test', 'volo_demo', checkpoint, *wanted]) == 0
    (validated,) = re.findall(r'Iter\(val\).*mIoU: ([\d.]+)', trained[1])
    (tested,) = re.findall(r'Iter\(test\).*mIoU: ([\d.]+)', printed(capsys))
    assert tested == validated
    drawn = sorted(p.relative_to(pictures) for p in pictures.rglob('*.jpg'))
    images = sorted((data / 'leftImg8bit/val').rglob('*.png'))
    assert drawn == [p.relative_to(data / 'leftImg8bit/val').with_suffix('.jpg') for p in images]
    assert sorted(p.stem for p in masks.glob('*.png')) == [p.stem for p in images]


def test_tta(data: Path, trained: tuple[Path, str], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    checkpoint = str(trained[0] / 'iter_4.pth')
    assert main(['test', 'volo_demo', checkpoint, '--tta', *train_options(data, tmp_path)]) == 0
    assert re.search(r'Iter\(test\).*mIoU: [\d.]+', printed(capsys))


def test_predict_keeps_relative_paths(trained: tuple[Path, str], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    photos = tmp_path / 'photos'
    for i, name in enumerate(('a/x.png', 'b/x.png', 'c/deep/y.jpg')):
        (photos / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(photos / name), scenes.scene(i, 48 + 16 * i, 96)[0][..., ::-1])
    (photos / 'README.txt').write_text('not an image')
    checkpoint, out = str(trained[0] / 'iter_4.pth'), tmp_path / 'out'
    assert main(['predict', checkpoint, str(photos), '--out', str(out)]) == 0
    assert '3/3' in capsys.readouterr().err
    model = mmseg_volo.load(checkpoint)
    for i, name in enumerate(('a/x', 'b/x', 'c/deep/y')):
        mask = cv2.imread(str(out / f'masks/{name}.png'), cv2.IMREAD_UNCHANGED)
        picture = cv2.imread(str(out / f'overlays/{name}.jpg'))
        assert mask.shape == (48 + 16 * i, 96) and mask.max() < 10
        assert picture.shape[0] > mask.shape[0] and picture.shape[1] == 96  # a legend below
        (source,) = photos.glob(f'{name}.*')
        assert np.array_equal(mask, mmseg_volo.predict(model, source).mask)
    main(['predict', 'volo_demo', checkpoint, str(photos / '*/x.png'), '--out', str(tmp_path / 'glob')])
    assert sorted(p.parent.name for p in (tmp_path / 'glob/masks').rglob('*.png')) == ['a', 'b']


@pytest.mark.parametrize('tool', ['train', 'test', 'predict'])
def test_scripts_are_the_commands(tool: str) -> None:
    script = (ROOT / f'tools/{tool}.py').read_text()
    assert f"main(['{tool}', *sys.argv[1:]])" in script


def test_bad_images_do_not_stop_the_others(
    trained: tuple[Path, str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    cv2.imwrite(str(tmp_path / 'good.png'), scenes.scene(0, 64, 64)[0])
    (tmp_path / 'empty.jpg').touch()
    (tmp_path / 'text.png').write_text('hello')
    arguments = ['predict', str(trained[0] / 'iter_4.pth'), str(tmp_path), '--out', str(tmp_path / 'out')]
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert '2 of 3 files left out' in error and 'empty.jpg (0 bytes)' in error and 'text.png' in error
    assert [p.name for p in (tmp_path / 'out/masks').iterdir()] == ['good.png']


def broken(data: Path, where: Path, name: str, content: bytes) -> Path:
    """A copy of a data set in which one training file is replaced."""
    shutil.copytree(data, where)
    next(where.glob(f'{name}/train/*/*.png')).write_bytes(content)
    return where


BAD = {
    r'no config at .*nothere': 'train nothere',
    r'there is no folder .*data/nowhere.*set data_root': 'train volo_demo --cfg-options data_root=data/nowhere',
    r'no checkpoint at .*none.pth': 'test volo_demo none.pth --cfg-options data_root={data}',
    r'no checkpoint at .*nought.pth': 'predict nought.pth {data} --out out',
    r'arch must be one of .* got .d9': 'train volo_d1_cityscapes --cfg-options data_root={data} model.backbone.arch=d9 '
    'model.backbone.init_cfg=None',
    r'VOLOO': 'train volo_demo --cfg-options data_root={data} model.backbone.type=VOLOO',
    r'drop_rate': 'train volo_demo --cfg-options data_root={data} model.backbone.drop_rate=1',
    r"no 'modle'; did you mean model": 'train volo_demo --cfg-options modle.x=1',
    r'expected CONFIG CHECKPOINT INPUT': 'predict volo_demo a.pth --out out',
}


@pytest.mark.parametrize('message', BAD)
def test_bad_input_is_one_sentence(
    message: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(BAD[message].format(data=data).split()) == 2
    error = capsys.readouterr().err.strip()
    assert re.search(message, error) and error.startswith('error: ') and len(error.splitlines()) == 1
    assert not list(tmp_path.rglob('*.png')) and not list(tmp_path.rglob('*.pth'))


@pytest.mark.parametrize('kind', ['leftImg8bit', 'gtFine'])
@pytest.mark.parametrize('content', [b'', b'text'])
def test_unreadable_training_files_are_named(
    kind: str,
    content: bytes,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.chdir(tmp_path)
    where = broken(data, tmp_path / 'data', kind, content)
    assert main(['train', 'volo_demo', '--cfg-options', f'data_root={where}']) == 2
    assert re.search(rf'{kind}/train/.*png \({len(content)} bytes\) is not a readable', capsys.readouterr().err)
    assert not (tmp_path / 'work_dirs').exists()


@pytest.mark.parametrize(
    ('call', 'absent'),
    [
        ('train part.py', 'train_dataloader and no optim_wrapper and no train_cfg'),
        ('test part.py part.pth', 'test_dataloader and no test_cfg and no test_evaluator'),
        ('test part.py part.pth --format-only --out masks', 'test_dataloader and no test_cfg'),
        ('test part.py part.pth --show-dir shown', 'test_dataloader and no test_cfg and no test_evaluator'),
    ],
)
def test_what_a_config_lacks_is_named(
    call: str, absent: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    Path('part.py').write_text("model = dict(type='EncoderDecoder')\n")
    Path('part.pth').touch()
    assert main(call.split()) == 2
    command = call.split()[0]
    assert capsys.readouterr().err == (
        f'error: part.py has no {absent}, which mmseg-volo {command} needs: add it, or inherit it by _base_\n'
    )


def test_a_checkpoint_of_another_model_is_refused(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    torch.save({'state_dict': {'encoder.weight': torch.zeros(1)}}, tmp_path / 'other.pth')
    options = ['--work-dir', str(tmp_path), '--cfg-options', f'data_root={data}', *SHORT]
    assert main(['test', 'volo_demo', str(tmp_path / 'other.pth'), *options]) == 2
    assert 'does not fit StreamingEncoderDecoder' in capsys.readouterr().err


@pytest.mark.parametrize('command', ['test', 'predict', 'train'])
def test_nothing_in_a_checkpoint_is_executed(
    command: str, data: Path, trained: tuple[Path, str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    content = torch.load(trained[0] / 'iter_4.pth', weights_only=True)
    content['meta']['config'] = f'import os; os.mkdir({str(tmp_path / "config")!r})'
    torch.save(content, tmp_path / 'plain.pth')
    torch.save({**content, 'extra': Trap(tmp_path / 'pickle')}, tmp_path / 'trap.pth')
    for name, status in (('trap', 2), ('plain', 0)):
        checkpoint, options = str(tmp_path / f'{name}.pth'), train_options(data, tmp_path / name)
        arguments = {
            'test': ['test', 'volo_demo', checkpoint, *options],
            'predict': ['predict', checkpoint, str(data / 'leftImg8bit/val'), '--out', str(tmp_path / name)],
            'train': ['train', 'volo_demo', '--resume', *options, f'load_from={checkpoint}', 'train_cfg.max_iters=5'],
        }
        assert main(arguments[command]) == status
        assert ('holds more than weights' in capsys.readouterr().err) == (status == 2)
    assert not (tmp_path / 'pickle').exists() and not (tmp_path / 'config').exists()
