"""The benchmarks for GPUs start, finish, go on and say what is missing; tried on a CPU with next to nothing."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest
from helpers.paths import ROOT
from helpers.tools import printed
from mmengine.config import Config

COMPARE = runpy.run_path(str(ROOT / 'benchmarks/camvid_from_scratch.py'))
STEP = runpy.run_path(str(ROOT / 'benchmarks/train_step.py'))['main']


def small(data: Path, work: Path, *more: str) -> list[str]:
    size = '--iters 2 --crop 64 64 --batch 2 --images 1 --workers 0'.split()
    return ['--data', str(data), *size, '--work-dir', str(work), *more]


def test_the_comparison_runs_and_does_not_repeat_itself(
    camvid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    whole = COMPARE['recipe']

    def narrow(*args: Any) -> Config:  # the head, for speed
        cfg = whole(*args)
        cfg.model.decode_head.channels = cfg.model.auxiliary_head.channels = 16
        return cfg

    monkeypatch.setitem(COMPARE['run'].__globals__, 'recipe', narrow)
    names, file = ['convformer_s18', 'resnet50'], tmp_path / 'found.json'
    arguments = small(camvid, tmp_path / 'work', '--json', str(file), '--models')
    assert COMPARE['main']([*arguments, *names]) == 0
    found = json.loads(file.read_text())
    assert found['results'].keys() == set(names) and found['frames'] == 1
    for result in found['results'].values():
        assert 0 <= result['miou'] <= 100 and result['iterations_per_second'] > 0 and result['parameters'] > 2e7
    table = [line for line in printed(capsys).splitlines() if line.startswith('| ')][-10:]
    assert len([line for line in table if 'not run' in line]) == 7
    written = {p: p.stat().st_mtime_ns for p in (tmp_path / 'work').rglob('*.pth')}
    assert len(written) == 2

    assert COMPARE['main']([*arguments, *names]) == 0  # nothing is trained again
    assert json.loads(file.read_text())['results'] == found['results']
    assert 'Iter(train)' not in printed(capsys)
    assert written == {p: p.stat().st_mtime_ns for p in (tmp_path / 'work').rglob('*.pth')}

    assert COMPARE['main']([*arguments, 'resnet50', '--seed', '1']) == 2  # another run does not pass for this one
    assert 'give another --work-dir' in capsys.readouterr().err


def test_all_are_compared_under_one_recipe(camvid: Path, tmp_path: Path) -> None:
    known = COMPARE['entries']()
    assert len(known) == 9
    args = COMPARE['arguments'](small(camvid, tmp_path), [*known])
    configs = [COMPARE['recipe'](name, entry, args).to_dict() for name, entry in known.items()]
    for cfg in configs:
        for key in ('backbone', 'neck'):
            cfg['model'].pop(key, None)
        for head in ('decode_head', 'auxiliary_head'):
            cfg['model'][head].pop('in_channels')
        for key in ('work_dir', 'experiment_name', 'visualizer'):
            cfg.pop(key)
    assert all(cfg == configs[0] for cfg in configs)


def test_a_failing_model_does_not_stop_the_others(
    camvid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def out_of_memory(cfg: object) -> None:
        raise RuntimeError('CUDA out of memory')

    monkeypatch.setitem(COMPARE['run'].__globals__, 'train', out_of_memory)
    assert COMPARE['main'](small(camvid, tmp_path, '--models', 'swin_t', 'mit_b2')) == 1
    failed = [
        line.split(' |')[0] for line in printed(capsys).splitlines() if 'RuntimeError: CUDA out of memory' in line
    ]
    assert failed[-2:] == ['| Swin-T (mmseg)', '| MiT-B2 (mmseg)']
    record = json.loads((tmp_path / 'swin_t/result.json').read_text())
    assert record['result'] is None  # so that the next run tries again


@pytest.mark.parametrize(('arguments', 'message'), [(['--iters', '0'], 'must be positive'), ([], 'there is no folder')])
def test_bad_input_is_one_sentence(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert COMPARE['main'](['--data', str(tmp_path / 'nowhere'), *arguments]) == 2
    error = capsys.readouterr().err.strip()
    assert message in error and len(error.splitlines()) == 1


def test_train_step(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    file = tmp_path / 'found.json'
    size = '--iters 1 --warmup 1 --batch 2 --crop 64 64'.split()
    assert STEP(['--configs', 'volo_demo', *size, '--json', str(file)]) == 0
    result = json.loads(file.read_text())['results']['volo_demo']
    assert result['seconds'] > 0 and result['flops'] > 0 and result['peak_memory'] > 0 and result['batch'] == 2
    assert '| volo_demo | 2 x 64x64 |' in printed(capsys)
    assert STEP(['--configs', 'volo_d9']) == 2
    assert 'none of that name comes with the package' in capsys.readouterr().err
