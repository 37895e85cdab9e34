"""Average logged losses and accuracies over all processes."""

from __future__ import annotations

from mmengine.dist import all_reduce_dict
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import Tensor


@HOOKS.register_module(name=['AverageLogsHook', 'MeanOverProcessesHook'])
class AverageLogsHook(Hook):
    """Log losses and accuracies as the mean over all processes; mmengine logs those of the first process."""

    priority = 'HIGHEST'  # before the hook that logs them

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: object = None, outputs: dict[str, object] | None = None
    ) -> None:
        if runner.world_size > 1 and outputs:
            values = {k: v.detach().float() for k, v in outputs.items() if isinstance(v, Tensor)}
            all_reduce_dict(values, op='mean')
            outputs.update(values)
