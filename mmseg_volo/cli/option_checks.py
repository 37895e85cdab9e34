"""Options of `mmseg-volo` that would be without effect beside others: refused, with what does it."""

from __future__ import annotations

import argparse

from mmseg_volo.errors import UsageError

OF_FOLDERS = {  # option of `--data` -> how a config has it
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
    """Whether an option of the command line is given."""
    value = getattr(args, name)
    return value is not None and value is not False and value != UNSET.get(name, [])


def refuse_without_effect(args: argparse.Namespace) -> None:
    """Looks at the options of `train`.

    Raises:
        UsageError: one would do nothing beside the others.
    """
    if args.config and not (args.data or args.model):
        for name, instead in OF_FOLDERS.items():
            if given(args, name):
                raise UsageError(f'{_option(name)} goes with --data and --model, and a config says it itself{instead}')
    if args.plan_only and (found := [_option(name) for name in OF_TRAINING if given(args, name)]):
        raise UsageError(
            f'--plan-only trains nothing, and {", ".join(found)} would not be in the config that it writes: give '
            f'{"it" if len(found) == 1 else "them"} when you train that'
        )
    if args.resume and args.overwrite:
        raise UsageError('--resume goes on with the training in the work dir, --overwrite removes it: give one of them')


def refuse_unused(args: argparse.Namespace) -> None:
    """Looks at the options of `predict`.

    Raises:
        UsageError: one is for an output that is not asked for.
    """
    for name, outputs in (('opacity', ('overlays',)), ('frames', ('masks', 'confidence'))):
        if given(args, name) and not {*outputs} & {*args.outputs}:
            raise UsageError(
                f'{_option(name)} is for {" and ".join(outputs)}, and --outputs asks for {",".join(args.outputs)} only'
            )


def _option(name: str) -> str:
    return f'--{name.replace("_", "-")}'
