"""Unwrap the segmentor from what is given to predict with, and check it."""

from __future__ import annotations

import copy
from typing import Any, cast

import torch
from mmengine.model import BaseAveragedModel
from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from mmseg_volo.errors import UsageError
from mmseg_volo.utils.forks import about_to_compute

WRAPPERS = (DataParallel, DistributedDataParallel, AveragedModel, BaseAveragedModel)
LOAD = 'pass what mmseg_volo.load returns'


def unwrap_segmentor(model: Any) -> nn.Module:
    """Return the segmentor to predict with.

    Args:
        model: from `mmseg_volo.load` or mmseg's `init_model`, possibly compiled by `torch.compile`, or in a wrapper of
            torch or mmengine that holds it as `module`: one image is predicted by one process on one device.

    Returns:
        The model, or the wrapped one; of a compiled one a shallow copy that calls the compiled code.

    Raises:
        UsageError: it is no segmentor, has no classes or test pipeline, or is in training mode; its weights are not
            float32, or are sharded over processes; or predictions would not use the compiled code.
    """
    about_to_compute()
    compiled = None
    while isinstance(model, WRAPPERS) or _is_wrapped(model):
        compiled = model if _is_wrapped(model) else None
        model = model.module if compiled is None else model._orig_mod
        if compiled is not None and isinstance(model, WRAPPERS):
            raise UsageError(
                f'torch.compile was given a {type(model).__name__}, which predictions do not use: compile the '
                f'segmentor, and wrap the result'
            )
    _check(model)
    segmentor: nn.Module = model
    if compiled is not None:
        segmentor = copy.copy(segmentor)
        segmentor._compiled_call_impl = compiled.__call__  # where nn.Module.compile keeps compiled code
    if is_compiled(segmentor) and not getattr(segmentor, 'predicts_as_it_computes', False):
        raise UsageError(
            f'torch.compile of a whole {type(model).__name__} with {type(model.decode_head).__name__} does not compile '
            f'its predictions: compile its backbone, model.backbone = torch.compile(model.backbone)'
        )
    return segmentor


def is_compiled(module: nn.Module) -> bool:
    """Whether `torch.compile` or `nn.Module.compile` has compiled a module."""
    return _is_wrapped(module) or getattr(module, '_compiled_call_impl', None) is not None


def _is_wrapped(model: Any) -> bool:
    """Whether it is torch.compile's OptimizedModule; importing that class would take a second."""
    return isinstance(model, nn.Module) and '_orig_mod' in model._modules


def _check(model: Any) -> None:
    kind = type(model).__name__
    if not isinstance(model, nn.Module):
        raise UsageError(f'expected a model first, got {kind}: {LOAD}')
    parameters = [*model.parameters()]
    if 'FullyShardedDataParallel' in kind or any(type(p).__name__ == 'DTensor' for p in parameters):
        raise UsageError(
            'the weights of the model are sharded over processes: save a checkpoint, load it and predict with that'
        )
    if not hasattr(model, 'test_step'):
        raise UsageError(f'expected a segmentor, got {kind}: {LOAD}')
    if 'test_pipeline' not in (getattr(model, 'cfg', None) or ()):
        raise UsageError(f'the {kind} has no cfg with test_pipeline, which says how images are loaded: {LOAD}')
    if not {'classes', 'palette'} <= {*(getattr(model, 'dataset_meta', None) or ())}:
        raise UsageError(f'the {kind} has no dataset_meta with classes and palette: {LOAD}')
    count, listed = getattr(model, 'num_classes', None), len(cast(Any, model).dataset_meta['classes'])
    if count not in (None, listed):
        raise UsageError(f'the {kind} predicts {count} classes, but its dataset_meta lists {listed}: {LOAD}')
    if model.training:
        raise UsageError('the model is in training mode, in which masks are random: call model.eval() first')
    if others := {p.dtype for p in parameters if p.is_floating_point()} - {torch.float32}:
        names = ' and '.join(sorted(str(dtype).removeprefix('torch.') for dtype in others))
        raise UsageError(
            f'expected a model with float32 weights, got {names}: call model.float(); '
            f'mmseg_volo.load(..., bf16=True) computes in bfloat16'
        )
