"""A console that is quiet before a training begins, and curves on a disk that may be full."""

from __future__ import annotations

import logging

from mmengine.visualization import Visualizer

from mmseg_volo.config import without_secrets
from mmseg_volo.redaction import redact_log_record

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
        handler.addFilter(redact_log_record)
    console = {h: h.level for h in logger.handlers if type(h) is logging.StreamHandler}
    for handler, level in console.items():
        handler.setLevel(max(level, logging.WARNING))
        handler.addFilter(lambda record: not record.getMessage().startswith(MEANINGLESS))
    return console


def with_redacted_configs(visualizer: Visualizer) -> Visualizer:
    """The same visualizer, which hands configs without secrets to its backends: they write and upload them."""
    add_config = visualizer.add_config
    visualizer.add_config = lambda config, **kwargs: add_config(without_secrets(config), **kwargs)
    return visualizer
