"""A console that is quiet before a training begins, and curves on a disk that may be full."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from mmengine.logging import print_log
from mmengine.registry import VISBACKENDS
from mmengine.visualization import LocalVisBackend, Visualizer

from mmseg_volo.config import without_secrets
from mmseg_volo.secrets import mask_record

# said at every start with nothing wrong; they go to the log file
MEANINGLESS = (
    'The prefix is not set in metric class',
    '"FileClient" will be deprecated',
    '"HardDiskBackend" is the alias',
)


def quiet_console(logger: logging.Logger) -> dict[logging.Handler, int]:
    """Lets only warnings that mean something through to the console; no handler writes secrets.

    Returns:
        The console's handlers, with the levels that they had.
    """
    for handler in logger.handlers:
        handler.addFilter(mask_record)
    console = {h: h.level for h in logger.handlers if type(h) is logging.StreamHandler}
    for handler, level in console.items():
        handler.setLevel(max(level, logging.WARNING))
        handler.addFilter(lambda record: not record.getMessage().startswith(MEANINGLESS))
    return console


def discreet(visualizer: Visualizer) -> Visualizer:
    """The same visualizer, which hands configs without secrets to its backends: they write and upload them."""
    add_config = visualizer.add_config
    visualizer.add_config = lambda config, **kwargs: add_config(without_secrets(config), **kwargs)
    return visualizer


@VISBACKENDS.register_module()
class PatientVisBackend(LocalVisBackend):
    """mmengine's backend of local files; numbers that cannot be written are left out, and the training goes on.

    The arguments are those of `LocalVisBackend`.
    """

    _failed = False

    def add_scalar(self, name: str, value: Any, step: int = 0, **kwargs: Any) -> None:
        try:
            super().add_scalar(name, value, step, **kwargs)
        except OSError as error:
            self._say(error)

    def add_scalars(self, scalar_dict: dict, step: int = 0, file_path: str | None = None, **kwargs: Any) -> None:
        try:
            super().add_scalars(scalar_dict, step, file_path, **kwargs)
        except OSError as error:
            self._say(error)

    def _say(self, error: OSError) -> None:
        if not self._failed:
            folder = Path(self._save_dir).absolute()
            print_log(f'the curves in {folder} have gaps: {error.strerror}', logger='current', level=logging.WARNING)
        self._failed = True
