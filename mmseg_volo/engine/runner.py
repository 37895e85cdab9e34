"""Extend mmengine's Runner by a quiet start, safe and strict loading, multi-process training on CPUs, and FSDP."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import is_distributed, is_main_process
from mmengine.logging import MMLogger
from mmengine.model import BaseTTAModel, MMDistributedDataParallel, is_model_wrapper
from mmengine.optim import BaseOptimWrapper, OptimWrapper
from mmengine.registry import DATASETS, RUNNERS
from mmengine.runner import BaseLoop, Runner
from mmengine.visualization import Visualizer
from torch import nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from mmseg_volo import datasets, evaluation  # noqa: F401, registers what a config may name
from mmseg_volo.config import formatted
from mmseg_volo.datasets.wrappers import NamedDataset
from mmseg_volo.engine.build_errors import NamingRunner
from mmseg_volo.engine.checkpoint import resumed_from, write_checkpoint
from mmseg_volo.engine.checkpoint_content import checkpoint_content, make_plain
from mmseg_volo.engine.config_checks import config_notes, refuse_impossible
from mmseg_volo.engine.console import quiet_console, with_redacted_configs
from mmseg_volo.engine.distributed import begin, join_on_cpu, synchronise_norms
from mmseg_volo.engine.effective_batch import EffectiveBatch, batch_of, check_norms
from mmseg_volo.engine.fsdp import WholeInValidationHook, keep_states_whole, shard
from mmseg_volo.engine.hooks.stop import keep_answering
from mmseg_volo.engine.init_cfg import drop_init_cfg, load_init_cfg_safely, pop_whole_init_cfg
from mmseg_volo.engine.optim.precision import precision_of
from mmseg_volo.engine.restore import load_initial, load_into, states_of
from mmseg_volo.engine.resume import follow_config, length_of, prepare_resume, resume_facts
from mmseg_volo.engine.run_id import new_run
from mmseg_volo.engine.work_dir import folders_of, in_use_by_training, own_session
from mmseg_volo.errors import UsageError
from mmseg_volo.models import segmentors  # noqa: F401, registers them and their modules
from mmseg_volo.models.normalisation import mismatches, test_steps


@RUNNERS.register_module()
class SegRunner(NamingRunner):
    """Train or test a config.

    During setup, notes go to the log file only; from the first iteration on also to the console. Checkpoints
    (`load_from`, `resume`, test: a path or https:// address) are read as plain data and must fit the model key by key;
    checkpoints that `init_cfg` of mmseg's and mmengine's modules names are read as plain data too. A training locks its
    work dir; every session has a folder of its own.
    """

    cfg: Config
    model: nn.Module
    _timestamp: str
    _training_started = False  # whether a training has started, not a test
    _asked_schedules: Any = None
    run_id: str | None = None  # see `engine/run_id.py`
    length: int | None = None  # of the training, see `engine/resume.py`
    former_lengths: Sequence[int] = ()
    _start: str | None = None  # checkpoint that the whole model starts from
    _start_summary = ''  # sentence on what was loaded from it

    def setup_env(self, env_cfg: dict[str, Any]) -> None:
        """Set up processes before anything is built; without a GPU they join by gloo, where mmengine would ask for
        CUDA."""
        begin(self._launcher)
        self.cfg = formatted(self.cfg)
        if self._launcher != 'none' and get_device() == 'cpu' and not is_distributed():
            join_on_cpu(self._launcher, env_cfg.get('dist_cfg', {}).get('timeout'))
        super().setup_env(env_cfg)
        self._timestamp = own_session(self.work_dir, self._timestamp, Path(self.cfg.filename or '').stem)

    def set_randomness(
        self, seed: int | None = None, diff_rank_seed: bool = False, deterministic: bool = False
    ) -> None:
        """Seed as mmengine does; a missing seed, as with `randomness.deterministic=True` alone, is drawn."""
        super().set_randomness(seed, diff_rank_seed, deterministic)

    def dump_config(self) -> None:
        """Write the config once a training starts: a test keeps the training's config in its work dir unchanged."""
        if self._training_started:
            super().dump_config()

    def build_logger(self, *args: object, **kwargs: object) -> MMLogger:
        """Build mmengine's logger; its console handler passes only warnings until `load_or_resume`. A line that cannot
        be written, as on a full disk, is dropped without the traceback that Python would print."""
        logging.raiseExceptions = False
        logger = super().build_logger(*args, **kwargs)
        self._console = quiet_console(logger)
        return logger

    def build_visualizer(self, visualizer: Visualizer | Mapping[str, Any] | None = None) -> Visualizer:
        """Build one visualizer per session; mmengine keeps one per name, so that a second training in the same process
        would write into the first one's work dir."""
        if isinstance(visualizer, Mapping):
            visualizer = {**visualizer, 'name': self._log_dir}
        return with_redacted_configs(super().build_visualizer(visualizer))

    def build_model(self, model: nn.Module | dict[str, Any]) -> nn.Module:
        """Build the model; read checkpoints of its `init_cfg` as plain data, or drop them if a resume replaces them."""
        built: nn.Module = super().build_model(model)
        resumes = self._resume and resumed_from(self.cfg)
        self._start = None if resumes else pop_whole_init_cfg(built)
        (drop_init_cfg if resumes else load_init_cfg_safely)(built)
        return built

    @property
    def _sharded(self) -> bool:
        return bool(self.distributed and self.cfg.get('fsdp', False))

    def wrap_model(self, model_wrapper_cfg: dict[str, Any] | None, model: nn.Module) -> nn.Module:
        """Wrap the model by DDP or FSDP; without a GPU DDP takes no device ids."""
        on_cpu, plain = get_device() == 'cpu', model_wrapper_cfg is None and not is_model_wrapper(model)
        wrapped: nn.Module
        if not (plain and self.distributed and (on_cpu or self._sharded)):
            wrapped = super().wrap_model(model_wrapper_cfg, model)
            return wrapped
        model = synchronise_norms(model, self.cfg.get('sync_bn'), self.logger)
        if self._sharded:
            self.model = model.to(get_device())
            self._init_whole_weights()  # before tensors are split
            return shard(model, get_device())
        unused = self.cfg.get('find_unused_parameters', False)
        wrapped = MMDistributedDataParallel(model, broadcast_buffers=False, find_unused_parameters=unused)
        return wrapped

    def _init_whole_weights(self) -> None:
        super()._init_model_weights()
        if self._start:
            self._start_summary = load_initial(self, self._segmentor(), self._start)

    def _init_model_weights(self) -> None:
        if not self._sharded:  # otherwise `wrap_model` has initialised them
            self._init_whole_weights()
        if is_main_process():
            for sentence in mismatches(self._segmentor(), test_steps(self.cfg)):
                self.logger.warning(sentence)

    def _segmentor(self) -> nn.Module:
        model = self.model
        while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
            model = model.get_submodule('module')
        return model

    def build_optim_wrapper(self, optim_wrapper: BaseOptimWrapper | Optimizer | dict[str, Any]) -> BaseOptimWrapper:
        """Build the optimiser; if the model is sharded, its states are too."""
        built = super().build_optim_wrapper(optim_wrapper)
        if self._sharded and built is not optim_wrapper:
            keep_states_whole(built.optimizer)
            self.register_hook(WholeInValidationHook())
        return built

    @property
    def batch(self) -> EffectiveBatch:
        """Return the effective batch, once the training is set up."""
        return batch_of(self)

    def scale_lr(self, optim_wrapper: OptimWrapper, auto_scale_lr: Mapping[str, Any] | None = None) -> None:
        """Scale learning rates linearly with the effective batch; mmengine ignores gradient accumulation, and logs the
        unscaled rate."""
        if (auto_scale_lr or {}).get('enable', False):
            for group in optim_wrapper.param_groups:
                group['lr'] *= self.batch.lr_factor

    def load_or_resume(self) -> None:
        """Load weights as the last step before the first iteration; unmute the console and log what will run."""
        for handler, level in self._console.items():
            handler.setLevel(level)
        self.logger.info(f'{self.experiment_name}: log, config and checkpoints are written to {self.work_dir}')
        if isinstance(self.optim_wrapper, OptimWrapper):
            check_norms(self.model, self.batch)
            hint = self.batch.suggestion()
            device = f'{get_device()}{", FSDP" * self._sharded}'
            self.logger.info(f'{self.batch}, {precision_of(self.optim_wrapper)} on {device}{hint and f"; {hint}"}')
        if self._start_summary:
            self.logger.info(self._start_summary)
        if self._resume and self._load_from is None:  # mmengine would follow `last_checkpoint`, even to a URL
            prepare_resume(self)
        for note in config_notes(self.cfg, self._asked_schedules) if self._training_started else ():
            self.logger.warning(note)
        super().load_or_resume()

    def train(self) -> nn.Module:
        """Train; a checkpoint to resume from first sets the seed and the position in the data."""
        refuse_impossible(self.cfg)
        with ExitStack() as stack:
            if is_main_process():
                for folder in folders_of(self.cfg):
                    stack.enter_context(in_use_by_training(folder))
            self._training_started = True
            self.dump_config()
            self.run_id = new_run()
            self.length = length_of(self.cfg)
            if self._resume:
                prepare_resume(self)
            self._asked_schedules = self.param_schedulers
            trained: nn.Module = super().train()
            return trained

    def _maybe_compile(self, target: str) -> None:
        """Compile the network's forward for the config key `compile`; mmengine compiles `target`, a step with its
        optimiser and hooks."""
        options = self.cfg.get('compile')
        if options in (None, False):
            return
        if not isinstance(options, bool | Mapping):
            raise UsageError(f"compile must be True, False or a dict of torch.compile's arguments, got {options!r}")
        model = self.model.get_submodule('module') if is_model_wrapper(self.model) else self.model
        model.compile(**(options if isinstance(options, Mapping) else {}))
        self.logger.info('torch.compile: the first iterations take long')

    def resume(self, filename: str, *args: object, **kwargs: object) -> None:
        """Resume; an optimiser or schedule state of another training raises a UsageError."""
        with states_of(filename):
            super().resume(filename, *args, **kwargs)

    def test(self) -> dict[str, float]:
        """Test trained weights.

        Raises:
            UsageError: no checkpoint is given; mmengine would score random weights.
        """
        if self._load_from is None and not self._has_loaded and not isinstance(self._train_loop, BaseLoop):
            raise UsageError('a test without a checkpoint would score random weights: set load_from to a checkpoint')
        metrics: dict[str, float] = super().test()
        return metrics

    @staticmethod
    def build_dataloader(
        dataloader: DataLoader[Any] | Mapping[str, Any], seed: int | None = None, diff_rank_seed: bool = False
    ) -> DataLoader[Any]:
        """Build a data loader whose errors name the file, and whose workers leave SIGTERM to the main process."""
        if not isinstance(dataloader, DataLoader) and isinstance(dataloader['dataset'], Mapping):
            dataset = DATASETS.build(dataloader['dataset'])
            if hasattr(dataset, 'full_init'):
                dataset.full_init()
            dataloader = {**dataloader, 'dataset': NamedDataset(dataset)}
        built: DataLoader[Any] = Runner.build_dataloader(dataloader, seed, diff_rank_seed)
        built.worker_init_fn = partial(keep_answering, built.worker_init_fn)
        return built

    def save_checkpoint(
        self,
        out_dir: str,
        filename: str,
        file_client_args: dict[str, Any] | None = None,
        save_optimizer: bool = True,
        save_param_scheduler: bool = True,
        meta: dict[str, Any] | None = None,
        by_epoch: bool = True,
        backend_args: dict[str, Any] | None = None,
    ) -> None:
        """Save what mmengine saves and what an exact resume needs in addition; streamed, see `write_checkpoint`.

        The signature is mmengine's; the file is written to the local file system, whatever the backends are.
        """
        meta = {
            'epoch': self.epoch + by_epoch,
            'iter': self.iter + (not by_epoch),
            **(meta or {}),
            **resume_facts(self),
        }
        if self._sharded and not is_main_process():  # all processes gather, only the first one writes
            self.model.state_dict()
            if save_optimizer:
                self.optim_wrapper.state_dict()
        elif is_main_process():
            content = checkpoint_content(self, meta, save_optimizer, save_param_scheduler)
            self.call_hook('before_save_checkpoint', checkpoint=content)
            make_plain(self, content)
            write_checkpoint(content, Path(out_dir) / filename)

    def load_checkpoint(
        self,
        filename: str,
        map_location: object = 'cpu',
        strict: bool = True,
        revise_keys: object = None,
    ) -> dict[str, Any]:
        """Load a checkpoint into the model; the signature is mmengine's, but it is read on the CPU, and strictly: only
        the start of a training may come from another head, see `partial_state`.

        Raises:
            FileNotFoundError, UsageError: see `mmseg_volo.io.weights`; a training is resumed with another
                `--accumulate`.
        """
        checkpoint = load_into(self, self._segmentor(), filename)
        if self._resume:
            follow_config(self, checkpoint, filename)
        self._has_loaded = True
        return checkpoint
