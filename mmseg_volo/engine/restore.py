"""Load a checkpoint into a runner: all of it for a test or a resume, what fits at the start of a training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from mmengine.runner import BaseLoop, Runner
from torch import Tensor, nn

from mmseg_volo.engine.checkpoint import DROPPED
from mmseg_volo.engine.checkpoint_content import ACCUMULATED, GRADIENTS, restore_buffers
from mmseg_volo.engine.loop import SAMPLES_DRAWN
from mmseg_volo.errors import UsageError
from mmseg_volo.io.checkpoint import reason
from mmseg_volo.io.model_spec import meta_of
from mmseg_volo.io.weights import read_source, strict_load, unwrap_state_dict
from mmseg_volo.models.normalisation import applied_normalisation, expected_normalisation, mismatch, test_steps
from mmseg_volo.models.partial_weights import backbone_words, class_names, partial_state

STEPS, FILES = (
    ('keep_ckpt_ids', DROPPED),
    ('last_ckpt', 'best_ckpt'),
)  # keys of message_hub: lists of iterations, and file names
HUB_SECTIONS = ('log_scalars', 'runtime_info', 'resumed_keys')  # of message_hub
STATE_FAULTS = (AssertionError, AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError)


def read_contents(source: str) -> dict[str, Any]:
    """Read a checkpoint in the form that mmengine's runner takes: with `state_dict` and `meta`.

    Raises:
        FileNotFoundError, UsageError: see `read_source` and `unwrap_state_dict`.
    """
    checkpoint = read_source(source)
    checkpoint['state_dict'] = unwrap_state_dict(checkpoint, source)  # where mmengine's EMAHook looks for its copy
    checkpoint['meta'] = meta_of(checkpoint)
    checkpoint['meta'].pop('config', None)  # `resume` would execute it
    return checkpoint


def check_progress(checkpoint: Mapping[str, Any], source: str) -> None:
    """Check that a training can be resumed from a checkpoint.

    Raises:
        UsageError: it holds no state of a training, or a damaged one.
    """
    meta, hub = meta_of(checkpoint), checkpoint.get('message_hub')
    sections: dict[str, Any] = {key: hub.get(key) for key in HUB_SECTIONS} if isinstance(hub, Mapping) else {}
    counts = [meta.get('epoch'), meta.get('iter')]
    counts += [meta[key] for key in ('seed', SAMPLES_DRAWN) if meta.get(key) is not None]
    whole = bool(sections) and all(isinstance(section, Mapping) for section in sections.values())
    if not whole or not all(map(_is_count, counts)):
        raise UsageError(
            f'{source} holds no training that could be resumed: use an iter_N.pth, or start from these weights with '
            f'load_from and without --resume'
        )
    for key, value in sections['runtime_info'].items():
        steps = isinstance(value, list) and all(map(_is_count, value))
        if (key in STEPS and not steps) or (key in FILES and not isinstance(value, str | None)):
            raise UsageError(f'{source}: {key} of its training is damaged: resume an earlier checkpoint')


def _is_count(value: object) -> bool:
    return isinstance(value, int) and 0 <= value < 2**63


@contextmanager
def states_of(source: str) -> Iterator[None]:
    """Turn errors of loading states of optimisers, schedules and logs into a UsageError.

    Raises:
        UsageError: a state does not fit.
    """
    try:
        yield
    except UsageError:
        raise
    except STATE_FAULTS as error:
        raise UsageError(
            f'{source} holds the state of another training, or a damaged one ({reason(error)}): resume it with its own '
            f'config, or start from its weights with load_from and without --resume'
        ) from error


def load_into(runner: Runner, model: nn.Module, source: str) -> dict[str, Any]:
    """Load a checkpoint: all of it for a test, a resume or FSDP; what fits at the start of a training, see
    `partial_state`.

    Args:
        runner: of the test or training.
        model: its model.
        source: see `read_source`.

    Returns:
        The checkpoint, as `read_contents` and the runner's hooks leave it.

    Raises:
        FileNotFoundError, UsageError: see `mmseg_volo.io.weights`; a training is resumed with another `--accumulate`.
    """
    checkpoint, summary = read_contents(source), f'loaded {source}'
    accumulated = checkpoint['meta'].get(ACCUMULATED, 1)
    if runner._resume and accumulated != runner.batch.accumulated:
        raise UsageError(
            f'{source} comes from a training with --accumulate {accumulated}, whose iterations are another fraction of '
            f'the schedule: resume it with the same value, not with {runner.batch.accumulated}'
        )
    if runner._resume:
        restore_buffers(checkpoint)
    elif (
        isinstance(runner._train_loop, BaseLoop) and not runner._sharded
    ):  # sharded tensors can only be replaced as a whole
        checkpoint['state_dict'], summary = _fitted(runner, model, checkpoint, source)
    runner.call_hook('after_load_checkpoint', checkpoint=checkpoint)
    strict_load(model, checkpoint['state_dict'], source)
    _compare_pixels(runner, model, checkpoint, source)
    for name, parameter in model.named_parameters():
        if runner._resume and name in checkpoint.get(GRADIENTS, ()):
            parameter.grad = checkpoint[GRADIENTS][name].to(parameter.device)
    runner.logger.info(summary)
    return checkpoint


def load_initial(runner: Runner, model: nn.Module, source: str) -> str:
    """Load what fits of a checkpoint of another model into a model to be trained.

    Args:
        runner: of the training.
        model: its model.
        source: see `read_source`.

    Returns:
        A sentence on what was loaded.

    Raises:
        FileNotFoundError, UsageError: it cannot be read, or the backbone does not fit.
    """
    checkpoint = read_contents(source)
    weights, summary = _fitted(runner, model, checkpoint, source)
    strict_load(model, weights, source)
    _compare_pixels(runner, model, checkpoint, source)
    return summary


def _fitted(
    runner: Runner, model: nn.Module, checkpoint: Mapping[str, Any], source: str
) -> tuple[Mapping[str, Tensor], str]:
    """Return the weights that a training starts from, and a sentence on them; a model without backbone takes all."""
    weights = checkpoint['state_dict']
    if not hasattr(model, 'backbone'):
        return weights, f'loaded {source}'
    loop = runner._train_loop
    meta = getattr(loop.dataloader.dataset, 'metainfo', None) if isinstance(loop, BaseLoop) else None
    words = backbone_words(runner.cfg.get('model'))
    return partial_state(model, weights, checkpoint, source, class_names(meta), words)


def _compare_pixels(runner: Runner, model: nn.Module, checkpoint: Mapping[str, Any], source: str) -> None:
    """Warn if images are normalised otherwise than in the training of the weights."""
    if sentence := mismatch(
        source, expected_normalisation(source, checkpoint), applied_normalisation(model, test_steps(runner.cfg))
    ):
        runner.logger.warning(sentence)
