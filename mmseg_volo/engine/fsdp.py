"""Shard parameters, gradients and optimiser states over the processes (FSDP): `train.py --fsdp`.

For models that do not fit one GPU together with AdamW's states; where they do, DDP (the default) is faster.

It uses torch's `fully_shard` in our own runner, not mmengine's `FSDPStrategy`, which needs its `FlexibleRunner` and
gives up strict loading, plain checkpoints and the quiet console; nor mmengine's `MMFullyShardedDataParallel` as
`model_wrapper_cfg`. With mmengine's `Runner` that one draws initial weights, and reads ImageNet's, after the tensors
were flattened and split; clips each process's gradients by the norm of its own shard; and saves from the first process
alone, while gathering takes all. `fully_shard` keeps names, shapes and groups of parameters, so that learning rates by
depth and rules of weight decay hold, and its gradients have one norm.

Checkpoints are those of a single process: they load without FSDP, and resume with any number of processes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dist import get_world_size, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor, nn

from mmseg_volo.errors import UsageError

try:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FSDPModule, fully_shard
    from torch.distributed.tensor import DTensor, distribute_tensor
except ImportError:  # torch built without torch.distributed, as for small devices
    fully_shard = None  # type: ignore[assignment]


AVERAGES = ('EMAHook', 'AveragePerUpdateHook')


def set_fsdp(cfg: Config, wanted: bool) -> None:
    """Decide whether a training shards its model, and write it into `cfg.fsdp`.

    Args:
        cfg: of a training, with its launcher; it may set `fsdp = True` itself.
        wanted: `--fsdp`.

    Raises:
        UsageError: sharding is asked for and impossible: a single process, torch without it, averaged weights.
    """
    if wanted and cfg.launcher == 'none':
        raise UsageError(
            '--fsdp shards the model over processes, but this is a single one: tools/dist_train.sh CONFIG GPUS --fsdp'
        )
    cfg.fsdp = (wanted or cfg.get('fsdp', False)) and cfg.launcher != 'none'
    if not cfg.fsdp:
        return
    if fully_shard is None:
        raise UsageError(f'--fsdp: torch {torch.__version__} was built without torch.distributed: leave it out')
    if averaging := [hook.type for hook in cfg.get('custom_hooks') or [] if hook.type in AVERAGES]:
        raise UsageError(
            f'--fsdp: {averaging[0]} keeps a second copy of the model, which cannot be sharded: leave out one of them'
        )


def shard(model: nn.Module, device: str) -> nn.Module:
    """Shard a model over all processes: block by block if the backbone lists its blocks, the rest as one unit.

    The state dict then holds whole tensors on the CPU in the first process (only shapes in the others; all processes
    must call it together), and whole tensors can be loaded into it.

    Args:
        model: with its initial weights, the same in all processes; changed in place.
        device: 'cuda', 'cpu', ...
    """
    mesh = init_device_mesh(device, (get_world_size(),))
    block_list = getattr(getattr(model, 'backbone', None), 'block_list', None)
    for block in block_list() if block_list is not None else ():
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    model.register_state_dict_post_hook(_gather_weights)
    model.register_load_state_dict_pre_hook(_split_weights)
    return model


def keep_states_whole(optimizer: torch.optim.Optimizer) -> None:
    """Gather the optimiser's state dict into whole tensors, as `shard` does the model's."""
    optimizer.register_state_dict_post_hook(_gather_states)
    optimizer.register_load_state_dict_pre_hook(_split_states)


def _whole(value: object) -> object:
    if not isinstance(value, DTensor):
        return value
    full = value.full_tensor()  # in all processes, one tensor at a time
    return full.cpu() if is_main_process() else full.to('meta')


def _own_shard(value: object, like: object) -> object:
    """Return this process's shard of a tensor, split like a parameter of the same shape; anything else unchanged."""
    if isinstance(like, DTensor) and isinstance(value, Tensor) and value.shape == like.shape:
        return distribute_tensor(value, like.device_mesh, like.placements, src_data_rank=None)
    return value


def _gather_weights(module: nn.Module, state_dict: dict[str, Any], prefix: str, local_metadata: object) -> None:
    state_dict.update({key: _whole(value) for key, value in state_dict.items()})


def _split_weights(
    module: nn.Module,
    state_dict: dict[str, Any],
    prefix: str,
    local_metadata: object,
    strict: bool,
    missing_keys: list[str],
    unexpected_keys: list[str],
    error_msgs: list[str],
) -> None:
    own = dict(module.named_parameters(remove_duplicate=False))
    state_dict.update({key: _own_shard(value, own.get(key)) for key, value in state_dict.items()})


def _gather_states(optimizer: torch.optim.Optimizer, state_dict: Mapping[str, Any]) -> dict[str, Any]:
    states = {i: {k: _whole(v) for k, v in state.items()} for i, state in state_dict['state'].items()}
    return {**state_dict, 'state': states}


def _split_states(optimizer: torch.optim.Optimizer, state_dict: Mapping[str, Any]) -> dict[str, Any]:
    params = [p for group in optimizer.param_groups for p in group['params']]
    indices = [i for group in state_dict['param_groups'] for i in group['params']]
    own = dict(zip(indices, params, strict=False))  # torch reports a mismatch
    states = {i: {k: _own_shard(v, own.get(i)) for k, v in state.items()} for i, state in state_dict['state'].items()}
    return {**state_dict, 'state': states}


class WholeInValidationHook(Hook):
    """Keep the parameters gathered from the first validated image to the last.

    Gathering takes all processes at once, but images of different sizes have different numbers of sliding windows: the
    processes would wait for one another forever.
    """

    def before_val(self, runner: Runner) -> None:
        runner.model.set_reshard_after_forward(False)
        for unit in (m for m in runner.model.modules() if isinstance(m, FSDPModule)):
            unit.unshard()  # windows call the model's modules, not its `forward`

    def after_val(self, runner: Runner) -> None:
        for unit in (m for m in runner.model.modules() if isinstance(m, FSDPModule)):
            unit.set_reshard_after_forward(unit is not runner.model, recurse=False)  # torch's own default
            unit.reshard()
