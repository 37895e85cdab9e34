"""mmengine's Runner with a quiet start and safe, strict loading."""

from __future__ import annotations

import logging
from typing import Any

from mmengine.logging import MMLogger
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from mmseg_volo.weights import read_checkpoint, strict_load, unwrap

# said at every start with nothing wrong; they go to the log file
MEANINGLESS = (
    'The prefix is not set in metric class',
    '"FileClient" will be deprecated',
    '"HardDiskBackend" is the alias',
)


@RUNNERS.register_module()
class SegRunner(Runner):
    """While it sets up, notes go to the log file only; from the first iteration on also to the console.

    Checkpoints (`load_from`, `resume`, test) are read as plain data and must fit the model key by key.
    """

    def build_logger(self, *args: Any, **kwargs: Any) -> MMLogger:
        """mmengine's logger; its console handler lets only warnings through until `load_or_resume`."""
        logger = super().build_logger(*args, **kwargs)
        self._console = {h: h.level for h in logger.handlers if type(h) is logging.StreamHandler}
        for handler, level in self._console.items():
            handler.setLevel(max(level, logging.WARNING))
            handler.addFilter(lambda record: not record.getMessage().startswith(MEANINGLESS))
        return logger

    def load_or_resume(self) -> None:
        """The last step before the first iteration: sets the console free and says where the results go."""
        for handler, level in self._console.items():
            handler.setLevel(level)
        self.logger.info(f'{self.experiment_name}: log, config and checkpoints go to {self.work_dir}')
        super().load_or_resume()

    def load_checkpoint(
        self,
        filename: str,
        map_location: Any = 'cpu',
        strict: bool = True,
        revise_keys: Any = None,
    ) -> dict:
        """Loads a checkpoint into the model; the signature is mmengine's, but it is always strict and on the CPU.

        Raises:
            FileNotFoundError, UsageError: see `mmseg_volo.weights`.
        """
        checkpoint = read_checkpoint(filename)
        checkpoint.get('meta', {}).pop('config', None)  # `resume` would execute it
        self.call_hook('after_load_checkpoint', checkpoint=checkpoint)
        model = self.model
        while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
            model = model.module
        strict_load(model, unwrap(checkpoint, filename), filename)
        self._has_loaded = True
        self.logger.info(f'loaded {filename}')
        return checkpoint
