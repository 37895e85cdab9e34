"""Log metrics of a training to TensorBoard, Weights & Biases or MLflow: `--log tensorboard|wandb|mlflow`."""

from __future__ import annotations

import importlib.util
import logging
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.registry import HOOKS, VISBACKENDS
from mmengine.runner import Runner
from mmengine.visualization.vis_backend import BaseVisBackend, LocalVisBackend
from numpy.typing import NDArray
from torch import Tensor

from mmseg_volo.errors import UsageError

MAX_FAILURES = 3  # a tracker that fails this often in a row is switched off
PROJECT = 'mmseg_volo'  # of wandb and MLflow, unless their environment variables name another
# config keys by which MLflow's table compares runs
PARAMETERS = ('model.backbone', 'model.decode_head', 'optim_wrapper', 'train_cfg', 'train_dataloader.batch_size')


class FaultTolerantTracker(BaseVisBackend):
    """Base of the trackers: a failure never ends a training. It is logged once; after three failures in a row, or if
    the run cannot be opened, the tracker is switched off, as each attempt may wait for a network.

    mmengine's backends of the same names end a run when a write fails, log no iteration (wandb), upload the Python
    files of the current folder (wandb), or write to a store that MLflow no longer has.

    Args:
        save_dir: WORK_DIR/TIME/vis_data, set by mmengine's visualizer.
    """

    _env_initialized: bool

    def __init__(self, save_dir: str):
        super().__init__(save_dir)
        self._failures = 0

    def open(self) -> None:
        """Open a run."""
        raise NotImplementedError

    def write_config(self, config: Config) -> None:
        """Write the config."""
        raise NotImplementedError

    def write_scalars(self, scalars: Mapping[str, float], step: int) -> None:
        """Write the metrics of an iteration."""
        raise NotImplementedError

    def write_image(self, name: str, image: NDArray[np.uint8], step: int) -> None:
        """Write an image, uint8 RGB (H, W, 3)."""
        raise NotImplementedError

    def end(self) -> None:
        """End the run."""
        raise NotImplementedError

    @property
    def name(self) -> str:
        """Return WORK_DIR/TIME, without the folders above."""
        return '/'.join(Path(self._save_dir).absolute().parts[-3:-1])

    @property
    def work_dir(self) -> Path:
        return Path(self._save_dir).absolute().parents[1]

    @property
    def experiment(self) -> FaultTolerantTracker:
        return self

    def add_config(self, config: Config, **kwargs: object) -> None:
        self._attempt(self.write_config, config)

    def add_scalar(self, name: str, value: float | Tensor, step: int = 0, **kwargs: object) -> None:
        self.add_scalars({name: value}, step)

    def add_scalars(
        self, scalar_dict: Mapping[str, Any], step: int = 0, file_path: str | None = None, **kwargs: object
    ) -> None:
        self._attempt(self.write_scalars, {name: float(value) for name, value in scalar_dict.items()}, int(step))

    def add_image(self, name: str, image: NDArray[np.uint8], step: int = 0, **kwargs: object) -> None:
        self._attempt(self.write_image, name, image, int(step))

    def close(self) -> None:
        if self._env_initialized:
            self._attempt(self.end)
            self._env_initialized = False
            self._failures = MAX_FAILURES

    def _init_env(self) -> None:
        """Do nothing: `_attempt` opens the run; mmengine's base class requires the method."""

    def _attempt(self, work: Callable[..., None], *args: object) -> None:
        if self._failures >= MAX_FAILURES:
            return
        try:
            if not self._env_initialized:
                self._failures = MAX_FAILURES
                self.open()
                self._env_initialized, self._failures = True, 0
            work(*args)
            self._failures = 0
        except Exception as error:  # these packages may raise anything
            self._failures += 1
            if self._failures == 1 or self._failures >= MAX_FAILURES:
                effect = 'gets nothing more' if self._failures >= MAX_FAILURES else 'has a gap'
                reason = ' '.join(str(error).split())[:300] or type(error).__name__
                print_log(f'{type(self).__name__} {effect}: {reason}', logger='current', level=logging.WARNING)


@VISBACKENDS.register_module(name=['FaultTolerantTensorboard', 'PatientTensorboard'])
class FaultTolerantTensorboard(FaultTolerantTracker):
    """Write event files beside `scalars.json`: `tensorboard --logdir WORK_DIR` shows each session as a run."""

    def open(self) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(self._save_dir)

    def write_config(self, config: Config) -> None:
        self._writer.add_text('config', f'```python\n{config.pretty_text}\n```')

    def write_scalars(self, scalars: Mapping[str, float], step: int) -> None:
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def write_image(self, name: str, image: NDArray[np.uint8], step: int) -> None:
        self._writer.add_image(name, image, step, dataformats='HWC')

    def end(self) -> None:
        self._writer.close()


@VISBACKENDS.register_module(name=['FaultTolerantWandb', 'PatientWandb'])
class FaultTolerantWandb(FaultTolerantTracker):
    """Log to a run of Weights & Biases in the group WORK_DIR, with files in the work dir; the variables of wandb
    (WANDB_PROJECT, WANDB_NAME, WANDB_MODE, ...) take precedence.
    """

    def open(self) -> None:
        import wandb

        ours = dict(WANDB_PROJECT=PROJECT, WANDB_NAME=self.name, WANDB_RUN_GROUP=self.work_dir.name)
        project, name, group = (os.environ.get(key, value) for key, value in ours.items())
        self._run = wandb.init(dir=str(self.work_dir), project=project, name=name, group=group)
        self._run.define_metric('*', step_metric='iteration')

    def write_config(self, config: Config) -> None:
        self._run.config.update(config.to_dict(), allow_val_change=True)

    def write_scalars(self, scalars: Mapping[str, float], step: int) -> None:
        self._run.log({**scalars, 'iteration': step})

    def write_image(self, name: str, image: NDArray[np.uint8], step: int) -> None:
        import wandb

        self._run.log({name: wandb.Image(image), 'iteration': step})

    def end(self) -> None:
        self._run.finish()


@VISBACKENDS.register_module(name=['FaultTolerantMLflow', 'PatientMLflow'])
class FaultTolerantMLflow(FaultTolerantTracker):
    """Log to a run of MLflow at MLFLOW_TRACKING_URI, else in WORK_DIR/mlflow.db; MLFLOW_EXPERIMENT_NAME is used, too.

    `mlflow ui --backend-store-uri sqlite:///WORK_DIR/mlflow.db` shows it.
    """

    def open(self) -> None:
        import mlflow

        logging.getLogger('alembic').setLevel(logging.WARNING)  # fifty lines on creating a database
        elsewhere = os.environ.get('MLFLOW_TRACKING_URI')
        client = self._client = mlflow.MlflowClient(elsewhere or f'sqlite:///{self.work_dir / "mlflow.db"}')
        artifacts = None if elsewhere else (self.work_dir / 'mlflow').as_uri()
        name = os.environ.get('MLFLOW_EXPERIMENT_NAME', PROJECT)
        experiment = client.get_experiment_by_name(name)
        number = experiment.experiment_id if experiment else client.create_experiment(name, artifact_location=artifacts)
        self._run = client.create_run(number, run_name=self.name).info.run_id

    def write_config(self, config: Config) -> None:
        self._client.log_text(self._run, config.pretty_text, 'config.py')
        for name in PARAMETERS:
            for key, value in _leaves(config.to_dict(), name):
                self._client.log_param(self._run, key, str(value)[:250])

    def write_scalars(self, scalars: Mapping[str, float], step: int) -> None:
        for name, value in scalars.items():
            self._client.log_metric(self._run, name, value, step=step)

    def write_image(self, name: str, image: NDArray[np.uint8], step: int) -> None:
        self._client.log_image(self._run, image, key=name, step=step)

    def end(self) -> None:
        self._client.set_terminated(self._run)


def _leaves(config: Mapping[str, Any], path: str) -> list[tuple[str, object]]:
    """Return (dotted name, value) of all leaves below a dotted name."""
    value: object = config
    for key in path.split('.'):
        value = value.get(key) if isinstance(value, Mapping) else None
    if isinstance(value, Mapping):
        return [leaf for key in value for leaf in _leaves(config, f'{path}.{key}')]
    return [] if value is None else [(path, value)]


TRACKERS = dict(tensorboard=FaultTolerantTensorboard, wandb=FaultTolerantWandb, mlflow=FaultTolerantMLflow)


@HOOKS.register_module()
class TestScoresHook(Hook):
    """Pass the scores of a test to the visualizer, as `test/NAME`; mmengine does so for validations only."""

    __test__ = False  # not a pytest test
    step = 0

    def after_load_checkpoint(self, runner: Runner, checkpoint: Mapping[str, Any]) -> None:
        self.step = checkpoint.get('meta', {}).get('iter', 0)

    def after_test_epoch(self, runner: Runner, metrics: Mapping[str, float] | None = None) -> None:
        scores = {f'test/{k}': v for k, v in (metrics or {}).items() if isinstance(v, float) and math.isfinite(v)}
        if scores:
            runner.visualizer.add_scalars(scores, step=self.step)


def set_trackers(cfg: Config, names: Sequence[str] | None, test: bool = False) -> None:
    """Add the trackers that `--log` names to a config's visualizer.

    Args:
        cfg: changed in place.
        names: keys of TRACKERS.
        test: whether to log the scores of a test, too.

    Raises:
        UsageError: a package is not installed, or nobody is logged in to wandb.
    """
    for name in dict.fromkeys(names or ()):
        if importlib.util.find_spec(name) is None:
            raise UsageError(f'--log {name} needs a package that is not installed: pip install {name}')
        if name == 'wandb':
            _check_wandb()
        if not cfg.get('visualizer'):
            cfg.visualizer = dict(type='SegLocalVisualizer', vis_backends=[dict(type='FaultTolerantVisBackend')])
        cfg.visualizer.vis_backends = [*cfg.visualizer.get('vis_backends', []), dict(type=TRACKERS[name].__name__)]
    if names and test:
        cfg.custom_hooks = [*cfg.get('custom_hooks', []), dict(type='TestScoresHook')]


def _check_wandb() -> None:
    """Refuse a missing login: wandb would ask for a key during the start, or fail there without a terminal."""
    import wandb

    if os.environ.get('WANDB_MODE', 'online') == 'online' and not wandb.api.api_key:
        raise UsageError('--log wandb: nobody is logged in: run wandb login, or set WANDB_MODE=offline and sync later')


@VISBACKENDS.register_module(name=['FaultTolerantVisBackend', 'PatientVisBackend'])
class FaultTolerantVisBackend(LocalVisBackend):
    """Write local files as mmengine's backend; metrics that cannot be written are dropped, and the training continues.

    The arguments are those of `LocalVisBackend`.
    """

    _failed = False

    def add_scalar(self, name: str, value: float | Tensor, step: int = 0, **kwargs: object) -> None:
        try:
            super().add_scalar(name, value, step, **kwargs)
        except OSError as error:
            self._warn_once(error)

    def add_scalars(
        self, scalar_dict: dict[str, Any], step: int = 0, file_path: str | None = None, **kwargs: object
    ) -> None:
        try:
            super().add_scalars(scalar_dict, step, file_path, **kwargs)
        except OSError as error:
            self._warn_once(error)

    def _warn_once(self, error: OSError) -> None:
        if not self._failed:
            folder = Path(self._save_dir).absolute()
            print_log(f'the curves in {folder} have gaps: {error.strerror}', logger='current', level=logging.WARNING)
        self._failed = True
