"""Refuse options of `mmseg-volo` that would have no effect together, and name the ones that do."""

from __future__ import annotations

import argparse

from mmseg_volo.errors import UsageError

OF_FOLDERS = {  # option that goes with `--data` -> how to set the same in a config
    'classes': '',
    'ignore': '',
    'binary': '',
    'size': '',
    'epochs': ': --cfg-options train_cfg.max_iters=N',
    'batch': ': --cfg-options train_dataloader.batch_size=N',
    'weights': ': --cfg-options model.backbone.init_cfg.checkpoint=SOURCE, or load_from=CHECKPOINT for a whole model',
    'seed': ': --cfg-options randomness.seed=N',
    'val_share': '',
    'images': '',
    'masks': '',
    'skip_unpaired': '',
    'allow_outside': '',
    'plan_only': '',
}
OF_TRAINING = ('amp', 'accumulate', 'auto_scale_lr', 'fsdp', 'log', 'cfg_options', 'overwrite', 'resume')
UNSET = dict(accumulate=1)


def given(args: argparse.Namespace, name: str) -> bool:
    """Return whether an option is set on the command line."""
    value = getattr(args, name)
    return value is not None and value is not False and value != UNSET.get(name, [])


def refuse_without_effect(args: argparse.Namespace) -> None:
    """Check the options of `train`.

    Raises:
        UsageError: an option would have no effect beside the others.
    """
    if args.config and not (args.data or args.model):
        for name, instead in OF_FOLDERS.items():
            if given(args, name):
                raise UsageError(f'{_option(name)} goes with --data and --model; a config sets it itself{instead}')
    if args.plan_only and (unused := [_option(name) for name in OF_TRAINING if given(args, name)]):
        raise UsageError(
            f'--plan-only trains nothing, and {", ".join(unused)} would not be in the config that it writes: give '
            f'{"it" if len(unused) == 1 else "them"} when you train that config'
        )
    if args.resume and args.overwrite:
        raise UsageError('--resume continues the training in the work dir, --overwrite removes it: give one of them')


def refuse_unused(args: argparse.Namespace) -> None:
    """Check the options of `predict`.

    Raises:
        UsageError: an option is for an output that `--outputs` does not name.
    """
    for name, outputs in (('opacity', ('overlays',)), ('video_masks_as_png', ('masks', 'confidence'))):
        if given(args, name) and not {*outputs} & {*args.outputs}:
            raise UsageError(
                f'{_option(name)} is for {" and ".join(outputs)}, but --outputs names only {",".join(args.outputs)}'
            )


def _option(name: str) -> str:
    return f'--{name.replace("_", "-")}'
