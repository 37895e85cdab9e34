"""What is given to predict with: a segmentor, or something that holds one."""

from __future__ import annotations

import copy
from typing import Any

import torch
from mmengine.model import BaseAveragedModel
from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from mmseg_volo.errors import UsageError
from mmseg_volo.utils.forks import about_to_compute

WRAPPERS = (DataParallel, DistributedDataParallel, AveragedModel, BaseAveragedModel)
LOAD = 'give what mmseg_volo.load returns'


def unwrap_segmentor(model: Any) -> nn.Module:
    """The segmentor to predict with.

    Args:
        model: from `mmseg_volo.load` or mmseg's `init_model`, itself, or as `torch.compile` made it, or in a wrapper of
            torch's or mmengine's that holds it as `module`: one image is predicted by one process on one device.

    Returns:
        The model; or what the wrapper holds; or of what `torch.compile` made a shallow copy that calls it.

    Raises:
        UsageError: it is no segmentor, has no classes or test pipeline, is in training mode, or its weights are not in
            float32, or are spread over processes; or it was compiled, and what predicts is not what was compiled.
    """
    about_to_compute()
    compiled = None
    while isinstance(model, WRAPPERS) or _is_wrapped(model):
        compiled = model if _is_wrapped(model) else None
        model = model.module if compiled is None else model._orig_mod
        if compiled is not None and isinstance(model, WRAPPERS):
            raise UsageError(
                f'torch.compile was given a {type(model).__name__}, which predictions do not go through: give it the '
                f'segmentor, and wrap what it returns'
            )
    _check(model)
    if compiled is not None:
        model = copy.copy(model)
        model._compiled_call_impl = compiled.__call__  # where nn.Module.compile keeps what it compiled
    if is_compiled(model) and not getattr(model, 'predicts_as_it_computes', False):
        raise UsageError(
            f'torch.compile of a whole {type(model).__name__} with {type(model.decode_head).__name__} compiles nothing '
            f'of what predicts: compile its backbone, model.backbone = torch.compile(model.backbone)'
        )
    return model


def is_compiled(module: nn.Module) -> bool:
    """Whether `torch.compile` or `nn.Module.compile` has compiled a module, or what it holds."""
    return _is_wrapped(module) or getattr(module, '_compiled_call_impl', None) is not None


def _is_wrapped(model: Any) -> bool:
    """Whether it is torch.compile's OptimizedModule, whose import would take a second."""
    return isinstance(model, nn.Module) and '_orig_mod' in model._modules


def _check(model: Any) -> None:
    kind = type(model).__name__
    if not isinstance(model, nn.Module):
        raise UsageError(f'expected a model first, got {kind}: {LOAD}')
    parameters = [*model.parameters()]
    if 'FullyShardedDataParallel' in kind or any(type(p).__name__ == 'DTensor' for p in parameters):
        raise UsageError(
            'the weights of the model are spread over processes: save them, load the checkpoint and predict'
        )
    if not hasattr(model, 'test_step'):
        raise UsageError(f'expected a segmentor, got {kind}, which may be a part of one: {LOAD}')
    if 'test_pipeline' not in (getattr(model, 'cfg', None) or ()):
        raise UsageError(f'the {kind} does not say how it looks at images, as it has no cfg with test_pipeline: {LOAD}')
    if not {'classes', 'palette'} <= {*(getattr(model, 'dataset_meta', None) or ())}:
        raise UsageError(f'the {kind} has no dataset_meta with classes and palette: {LOAD}')
    count, named = getattr(model, 'num_classes', None), len(model.dataset_meta['classes'])
    if count not in (None, named):
        raise UsageError(f'the {kind} tells {count} classes apart, but its dataset_meta names {named}: {LOAD}')
    if model.training:
        raise UsageError('the model is in training mode, in which masks depend on chance: call model.eval() first')
    if others := {p.dtype for p in parameters if p.is_floating_point()} - {torch.float32}:
        names = ' and '.join(sorted(str(dtype).removeprefix('torch.') for dtype in others))
        raise UsageError(
            f'the weights of the model are in {names}, and it predicts with float32 ones: call model.float(); '
            f'mmseg_volo.load(..., bf16=True) computes in bfloat16'
        )
