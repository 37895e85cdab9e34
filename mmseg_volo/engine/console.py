"""Mute the console before a training starts, and keep secrets out of logs and logged configs."""

from __future__ import annotations

import logging

from mmengine.visualization import Visualizer

from mmseg_volo.config import without_secrets
from mmseg_volo.redaction import redact_log_record

# logged at every start without a fault; they go to the log file only
MEANINGLESS = (
    'The prefix is not set in metric class',
    '"FileClient" will be deprecated',
    '"HardDiskBackend" is the alias',
)


def quiet_console(logger: logging.Logger) -> dict[logging.Handler, int]:
    """Let only meaningful warnings through to the console, and redact secrets in all handlers.

    Returns:
        The console's handlers, with their former levels.
    """
    for handler in logger.handlers:
        handler.addFilter(redact_log_record)
    console: dict[logging.Handler, int] = {h: h.level for h in logger.handlers if type(h) is logging.StreamHandler}
    for handler, level in console.items():
        handler.setLevel(max(level, logging.WARNING))
        handler.addFilter(lambda record: not record.getMessage().startswith(MEANINGLESS))
    return console


def with_redacted_configs(visualizer: Visualizer) -> Visualizer:
    """Make a visualizer hand configs without secrets to its backends, which write and upload them."""
    add_config = visualizer.add_config
    visualizer.add_config = lambda config, **kwargs: add_config(without_secrets(config), **kwargs)
    return visualizer
