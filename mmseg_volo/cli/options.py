"""Convert parsed arguments to the options of trainings and tests, so that no other module depends on argparse."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

from mmseg_volo.autotrain.options import AutoTrainOptions
from mmseg_volo.engine.options import TestOptions, TrainOptions
from mmseg_volo.errors import UsageError

T = TypeVar('T', TrainOptions, TestOptions)


def train_options(args: argparse.Namespace, folder: AutoTrainOptions | None) -> TrainOptions:
    """Return the options of `train`; `folder` sets the config and the work dir."""
    values = {**vars(args)}
    if folder:
        values.update(config=str(folder.config), work_dir=str(folder.folder))
    return _options(TrainOptions, values)


def test_options(args: argparse.Namespace) -> TestOptions:
    """Return the options of `test`."""
    return _options(TestOptions, vars(args))


def folder_options(args: argparse.Namespace) -> AutoTrainOptions | None:
    """Return the options that go with `--data`, or None if a config is given.

    Raises:
        UsageError: one of --data and --model is missing, or a config or a launcher is given too.
    """
    if args.config and not (args.data or args.model):
        return None
    if args.config or not args.data or not args.model:
        raise UsageError('give either a config, or both --data FOLDER and --model NAME')
    options = AutoTrainOptions(**{field.name: getattr(args, field.name) for field in fields(AutoTrainOptions)})
    if args.launcher != 'none':
        raise UsageError(
            f'--data cannot be combined with --launcher: write the config with --plan-only, then launch it: '
            f'{options.config}'
        )
    return options


def _options(kind: type[T], values: Mapping[str, Any]) -> T:
    return kind(**{field.name: values[field.name] for field in fields(kind) if values.get(field.name) is not None})
