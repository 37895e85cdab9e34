"""`--log tensorboard|wandb|mlflow`: what arrives there, and that nothing there ends a run."""

from __future__ import annotations

import importlib.util
import struct
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
from helpers.tools import train_options
from mmengine.config import Config

from mmseg_volo.datasets.synthetic import scenes
from mmseg_volo.engine import trackers
from mmseg_volo.engine.trackers import (
    MAX_FAILURES,
    FaultTolerantTensorboard,
    FaultTolerantTracker,
    FaultTolerantWandb,
    set_trackers,
)
from mmseg_volo.errors import UsageError
from mmseg_volo_cli import main


@pytest.fixture
def save_dir(tmp_path: Path) -> Path:
    return tmp_path / 'work/20260101_000000/vis_data'


def log(tracker: FaultTolerantTracker) -> None:
    """As a training does."""
    tracker.add_config(Config(dict(model=dict(backbone=dict(type='VOLO', arch='d1')), train_cfg=dict(max_iters=20))))
    tracker.add_scalars(dict(loss=0.5, iter=10), step=10, file_path='x.json')
    tracker.add_scalars(dict(mIoU=80.0), step=10)
    tracker.add_scalars({'loss': np.float32(0.25), 'decode.loss_ce': float('nan'), 'iter': 20}, step=20)
    tracker.add_image('picture', np.zeros((4, 6, 3), np.uint8), step=20)
    tracker.close()
    tracker.add_scalars(dict(loss=9.0), step=30)  # after the end
    tracker.close()


def test_tensorboard(save_dir: Path) -> None:
    pytest.importorskip('tensorboard', reason='tensorboard is not installed')
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log(FaultTolerantTensorboard(str(save_dir)))
    found = EventAccumulator(str(save_dir)).Reload()
    assert [(event.step, event.value) for event in found.Scalars('loss')] == [(10, 0.5), (20, 0.25)]
    assert [(event.step, event.value) for event in found.Scalars('mIoU')] == [(10, 80.0)]
    assert [event.step for event in found.Images('picture')] == [20]


def records(content: bytes) -> Iterator[bytes]:
    """Of wandb's file: a header, then LevelDB's log format."""
    place, whole = 7, b''
    while place + 7 <= len(content):
        if (left := 32768 - place % 32768) < 7:
            place += left
            continue
        length, kind = struct.unpack_from('<HB', content, place + 4)
        whole += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # complete, or its last part
            yield whole
            whole = b''


def test_wandb_offline(save_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip('wandb', reason='wandb is not installed')
    from wandb.proto.wandb_internal_pb2 import Record

    monkeypatch.setenv('WANDB_MODE', 'offline')
    monkeypatch.setenv('WANDB_SILENT', 'true')
    log(FaultTolerantWandb(str(save_dir)))
    (path,) = save_dir.parents[1].glob('wandb/offline-run-*/*.wandb')
    rows, groups, last, deadline = [], [], None, time.monotonic() + 30
    while last != 'exit' and time.monotonic() < deadline:  # a process of wandb's writes it
        rows, groups = [], []
        for data in records(path.read_bytes()):
            record = Record.FromString(data)
            last = record.WhichOneof('record_type')
            if last == 'run':
                groups.append((record.run.project, record.run.display_name, record.run.run_group))
            if last == 'history':
                rows.append({item.key or item.nested_key[0]: item.value_json for item in record.history.item})
        time.sleep(0.1)
    assert groups[0] == ('mmseg_volo', 'work/20260101_000000', 'work')
    losses = [(row['iteration'], row['loss']) for row in rows if 'loss' in row]
    assert losses == [('10', '0.5'), ('20', '0.25')]
    assert [row['mIoU'] for row in rows if 'mIoU' in row] == ['80']


def test_training_and_test_in_mlflow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    mlflow = pytest.importorskip('mlflow', reason='mlflow is not installed')
    for name in ('MLFLOW_TRACKING_URI', 'MLFLOW_EXPERIMENT_NAME'):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    data = scenes.generate(tmp_path / 'scenes', 2, 2, 32, 64)
    work = tmp_path / 'work'
    assert main(['train', 'volo_demo', '--log', 'mlflow', *train_options(data, work)]) == 0
    checkpoint = str(work / 'iter_4.pth')
    assert main(['test', 'volo_demo', checkpoint, '--log', 'mlflow', *train_options(data, work)]) == 0
    assert 'FaultTolerantMLflow' not in capsys.readouterr().out  # nothing failed
    client = mlflow.MlflowClient(f'sqlite:///{work / "mlflow.db"}')
    (experiment,) = client.search_experiments(filter_string="name = 'mmseg_volo'")
    test, train = client.search_runs([experiment.experiment_id])
    assert [run.info.status for run in (test, train)] == ['FINISHED'] * 2
    assert [m.step for m in client.get_metric_history(train.info.run_id, 'loss')] == [1, 2, 3, 4]
    (validated,), (tested,) = (
        client.get_metric_history(run.info.run_id, name) for run, name in ((train, 'mIoU'), (test, 'test/mIoU'))
    )
    assert (tested.value, tested.step) == (validated.value, 4)
    assert train.data.params['optim_wrapper.optimizer.lr'] == '0.02' and train.info.run_name.startswith('work/2')
    assert [file.path for file in client.list_artifacts(train.info.run_id)] == ['config.py']
    assert not (tmp_path / 'mlruns').exists()


class Broken(FaultTolerantTracker):
    """Fails where it is told to."""

    opens = True
    calls = 0

    def open(self) -> None:
        self.calls += 1
        if not self.opens:
            raise RuntimeError('no network')

    def write_scalars(self, scalars: Mapping[str, float], step: int) -> None:
        self.calls += 1
        if step < 10:
            raise OSError('disk\nfull')

    def end(self) -> None:
        raise RuntimeError('no end')


def test_what_fails_is_said_and_left(save_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(trackers, 'print_log', lambda line, **_: said.append(line))

    def run(steps: list[int], opens: bool = True) -> tuple[int, list[str]]:
        said.clear()
        tracker = Broken(str(save_dir))
        tracker.opens = opens
        for step in steps:
            tracker.add_scalars(dict(loss=1.0), step)
        tracker.close()
        return tracker.calls, [*said]

    gap, end = 'Broken has a gap: disk full', 'Broken has a gap: no end'
    assert run([1, 11, 12]) == (4, [gap, end])
    assert run([1, 2, 3, 4, 5, 11]) == (1 + MAX_FAILURES, [gap, 'Broken gets nothing more: disk full'])
    assert run([11, 12], opens=False) == (1, ['Broken gets nothing more: no network'])


@pytest.mark.parametrize('name', ['tensorboard', 'wandb', 'mlflow'])
def test_a_package_that_is_absent(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, 'find_spec', lambda _: None)
    with pytest.raises(UsageError, match=f'--log {name} needs .*: pip install {name}'):
        set_trackers(Config(), [name])


def test_nobody_is_logged_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip('wandb', reason='wandb is not installed')
    for name in ('WANDB_MODE', 'WANDB_API_KEY'):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv('HOME', str(tmp_path))
    monkeypatch.setenv('NETRC', str(tmp_path / 'netrc'))
    with pytest.raises(UsageError, match='nobody is logged in'):
        set_trackers(Config(), ['wandb'])


def test_a_config_without_a_visualizer() -> None:
    pytest.importorskip('tensorboard', reason='tensorboard is not installed')
    cfg = Config()
    set_trackers(cfg, ['tensorboard', 'tensorboard'], test=True)
    assert [backend.type for backend in cfg.visualizer.vis_backends] == [
        'FaultTolerantVisBackend',
        'FaultTolerantTensorboard',
    ]
    assert [hook.type for hook in cfg.custom_hooks] == ['TestScoresHook']
    set_trackers(plain := Config(), None)
    assert not plain.to_dict()
