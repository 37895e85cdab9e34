"""Stop a training early, also across a resume."""

from __future__ import annotations

from collections.abc import Mapping

from mmengine.hooks import EarlyStoppingHook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

EARLY_STOPPING_KEY = 'early_stopping'  # in the message hub: (validations without a better score, best score)


@HOOKS.register_module(name=['ResumableEarlyStoppingHook', 'LastingEarlyStoppingHook'])
class ResumableEarlyStoppingHook(EarlyStoppingHook):
    """Stop as mmengine's hook does; checkpoints keep the best score and the number of validations since it."""

    wait_count: int
    best_score: float

    priority = 'LOW'  # before the checkpoint of a best score is written

    def before_train(self, runner: Runner) -> None:
        self.wait_count, self.best_score = runner.message_hub.runtime_info.get(
            EARLY_STOPPING_KEY, (self.wait_count, self.best_score)
        )

    def after_val_epoch(self, runner: Runner, metrics: Mapping[str, float] | None = None) -> None:
        super().after_val_epoch(runner, metrics)
        runner.message_hub.update_info(EARLY_STOPPING_KEY, (self.wait_count, self.best_score))
