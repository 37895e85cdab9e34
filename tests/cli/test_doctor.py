"""`mmseg-volo doctor`, in whole and in broken environments."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers.originals import ONEDL
from helpers.paths import ROOT
from safetensors.torch import save_file

from mmseg_volo_cli import main
from mmseg_volo_cli.doctor.packages import INSTEAD, MODULES, fits, requirements

PASSWORD = 'hunter2-swordfish'


def called(folder: Path, *flags: str, **env: str) -> tuple[int, str]:
    """(status, what it said) of the doctor in a process of its own, which must not die of an exception."""
    given = {**os.environ, 'PYTHONPATH': str(ROOT), **env}
    command = [sys.executable, *flags, '-m', 'mmseg_volo_cli', 'doctor']
    done = subprocess.run(command, capture_output=True, text=True, env=given, cwd=folder, timeout=120)
    assert 'Traceback' not in done.stderr, done.stderr
    return done.returncode, done.stdout + done.stderr


def test_all_is_well_here(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    status, said = main(['doctor']), capsys.readouterr().out
    assert status == 0 and 'WRONG' not in said and said.endswith('Nothing is broken.\n'), said
    assert f'ok     torch {torch.__version__.split("+")[0]}' in said
    assert re.search(r'ok     cpu: float32, loss \d\.\d\d', said)
    assert not [p for p in tmp_path.iterdir()]


def test_a_missing_kernel_is_a_note(tmp_path: Path) -> None:
    status, said = called(tmp_path, MMSEG_VOLO_CPU_KERNEL='0')
    assert status == 0 and 'note   VOLO runs on CPUs without its compiled kernel' in said, said


def test_nothing_is_installed(tmp_path: Path) -> None:
    status, said = called(tmp_path, '-S')
    assert status == 1
    for line in ('torch is not installed', "-> pip install 'torch>=2.10'", 'onedl-mmcv is not installed'):
        assert line in said
    assert 'note   skipped: torch cannot be imported (ModuleNotFoundError' in said
    assert 'note   skipped: mmseg_volo cannot be imported' in said
    assert re.search(r'\d\d problems, see WRONG above', said)
    assert 'WRONG  versions cannot be compared: packaging cannot be imported (ModuleNotFoundError' in said
    assert '-> pip install packaging' in said and 'this check failed' not in said


def test_what_is_too_old_or_broken_is_named(tmp_path: Path) -> None:
    stubs, mmcv = tmp_path / 'stubs', 'onedl-mmcv' if ONEDL else 'mmcv'  # the one that is installed, or there are two
    for name, version, module, text in (
        ('torch', '2.1.0+cpu', 'torch', ''),
        (mmcv.replace('-', '_'), '2.3.6', 'mmcv', 'raise AttributeError("no such symbol")'),
        ('opencv_python', '5.1', 'cv2', 'raise ImportError("libGL.so.1: cannot open shared object file")'),
        ('tqdm', '4.0', 'tqdm', 'import sys; sys.exit(3)'),
    ):
        (stubs / f'{name}-{version}.dist-info').mkdir(parents=True)
        head = f'Metadata-Version: 2.1\nName: {name.replace("_", "-")}\nVersion: {version}\n'
        (stubs / f'{name}-{version}.dist-info/METADATA').write_text(head)
        (stubs / f'{module}.py').write_text(text)
    status, said = called(tmp_path, PYTHONPATH=f'{stubs}{os.pathsep}{ROOT}')
    assert status == 1
    assert "WRONG  torch 2.1.0+cpu does not fit: >=2.10 is needed\n         -> pip install 'torch>=2.10'" in said
    assert f'WRONG  {mmcv} 2.3.6 cannot be imported: AttributeError: no such symbol' in said
    assert "pip uninstall opencv-python, then pip install 'opencv-python-headless'" in said
    assert 'WRONG  tqdm 4.0 cannot be imported: SystemExit: 3' in said
    assert 'One training step' in said


def test_secrets_are_not_printed(tmp_path: Path) -> None:
    mirror = dict(MMSEG_VOLO_MIRROR=f'https://me:{PASSWORD}@mirror.example/{PASSWORD}?key={PASSWORD}')
    proxies = {name: f'http://me:{PASSWORD}@proxy.example:1' for name in ('HTTPS_PROXY', 'http_proxy')}
    names = ('HF_TOKEN', 'WANDB_API_KEY', 'AWS_SECRET_ACCESS_KEY', 'DB_PASSWORD')
    secret = tmp_path / PASSWORD  # a secret may be part of a path
    secret.mkdir()
    env = {**mirror, **proxies, **dict.fromkeys(names, PASSWORD), 'TORCH_HOME': str(secret)}
    _, said = called(tmp_path, '-S', **env)
    assert 'mirror.example' in said and PASSWORD not in said and '***' in said


def test_storage_that_is_broken(tmp_path: Path) -> None:
    cache = tmp_path / 'torch/hub/checkpoints/mmseg_volo/host'
    cache.mkdir(parents=True)
    save_file(dict(a=torch.zeros(3), b=torch.zeros(2, 2)), cache / 'whole.safetensors')
    (cache / 'cut.safetensors').write_bytes((cache / 'whole.safetensors').read_bytes()[:-1])
    (cache / 'page.safetensors').write_text('<html>')
    (cache / 'a.pth.part').write_bytes(b'0')
    (tmp_path / 'data').mkdir()
    (tmp_path / 'data/cityscapes').symlink_to(tmp_path / 'gone')
    (tmp_path / 'data/camvid/images').mkdir(parents=True)
    env = dict(TORCH_HOME=str(tmp_path / 'torch'), MMSEG_VOLO_MIRROR=str(tmp_path / 'none'), HF_HUB_OFFLINE='1')
    status, said = called(tmp_path, '-S', **env)
    assert status == 1
    damaged = re.findall(r'WRONG  .*/(\w+).safetensors is truncated or damaged', said)
    assert sorted(damaged) == ['cut', 'page']
    assert 'unfinished downloads there: 1' in said and 'note   HF_HUB_OFFLINE is set' in said
    assert f'WRONG  MMSEG_VOLO_MIRROR={tmp_path}/none is not a folder' in said
    assert 'WRONG  data/cityscapes is a link to' in said and 'ok     data/camvid: images' in said
    if Path('/proc/self').is_dir():
        _, said = called(tmp_path, '-S', TORCH_HOME='/proc/none')
        assert re.search(r'WRONG  weights: /proc cannot be written to .*\n +-> set TORCH_HOME', said)


def test_a_device_that_fails(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    import mmseg_volo_cli.doctor.trial

    def failing(device: str) -> str:
        if device == 'cuda:1':
            raise RuntimeError('CUDA error: no kernel image is available')
        return 'trained'

    monkeypatch.setattr(mmseg_volo_cli.doctor.trial, 'training_step', failing)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)
    monkeypatch.setattr(torch.cuda, 'mem_get_info', lambda i: (1e9 * (1 + 9 * i), 10e9))
    monkeypatch.setattr(torch.cuda, 'get_device_name', lambda i: f'GPU {i}')
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '0,1')
    assert main(['doctor']) == 1
    said = capsys.readouterr().out
    assert 'note   cuda:0 GPU 0, 1.0 of 10.0 GB free\n         -> another program' in said
    assert 'ok     cuda:1 GPU 1, 10.0 of 10.0 GB free' in said
    assert re.search(r'WRONG  cuda:1: RuntimeError: CUDA error: no kernel image is available\n +-> ', said)
    assert 'ok     cpu:' in said and 'ok     cuda:0:' in said and said.endswith('1 problem, see WRONG above\n')


@pytest.mark.parametrize(('weights', 'message'), [(float('nan'), 'the loss of a training step is nan')])
def test_a_step_that_computes_nonsense(monkeypatch: pytest.MonkeyPatch, weights: float, message: str) -> None:
    import mmseg_volo_cli.doctor.trial

    tiny = mmseg_volo_cli.doctor.trial.tiny

    def broken() -> torch.nn.Module:
        model = tiny()
        torch.nn.init.constant_(model.decode_head.conv_seg.weight, weights)
        return model

    monkeypatch.setattr(mmseg_volo_cli.doctor.trial, 'tiny', broken)
    with pytest.raises(RuntimeError, match=message):
        mmseg_volo_cli.doctor.trial.training_step('cpu')


@pytest.mark.parametrize(
    ('version', 'needed', 'expected'),
    [
        ('2.10.0', '>=2.6', True),
        ('2.6', '>=2.6.0', True),
        ('2.6.0a0+git12', '>=2.6', False),
        ('2.6.0rc1', '>=2.6', False),
        ('2.6.0.dev20250101+cu128', '>=2.6', False),
        ('2.6.0.post1', '>=2.6', True),
        ('2.7.0rc1', '>=2.6', True),
        ('3.0rc1', '>=2.6,<3', False),
        ('2.6.0+cu128', '>=2.6', True),
        ('2.6.0+cu128', '==2.6.0', True),
        ('2.6.0+cu128', '<=2.6.0', True),
        ('2.6.0+cu128', '>2.6.0', False),
        ('2.5.1+cu124', '>=2.6', False),
        ('0.3.0', '>=0.2,<0.3', False),
        ('1.0', '', True),
        ('1.0rc1', '', True),
        ('1!0.1', '>=2.6', True),
        ('unknown', '>=0', False),
        ('unknown', '', True),
    ],
)
def test_versions_are_compared_by_pep_440(version: str, needed: str, expected: bool) -> None:
    assert fits(version, needed) is expected


def test_only_packaging_is_missing(tmp_path: Path) -> None:
    (tmp_path / 'packaging').mkdir()
    (tmp_path / 'packaging/__init__.py').write_text('raise ImportError("broken")')
    status, said = called(tmp_path, PYTHONPATH=f'{tmp_path}{os.pathsep}{ROOT}')
    assert status == 1
    assert 'WRONG  versions cannot be compared: packaging cannot be imported (ImportError: broken)' in said
    assert re.search(r'ok     torch \d', said) and 'this check failed' not in said


def test_every_requirement_is_looked_for() -> None:
    listed = {re.match(r'[\w.-]+', line)[0] for line in (ROOT / 'requirements.txt').read_text().splitlines()}
    assert {name for name, (_, optional) in requirements().items() if not optional} == listed
    assert MODULES.keys() <= listed and INSTEAD.keys() <= listed
