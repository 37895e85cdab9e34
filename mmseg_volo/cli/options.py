"""From the arguments of a command line to the options of what is called: nothing else knows argparse."""

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
    """The options of `train`; those of a folder say where its config is and where the training works."""
    given = {**vars(args)}
    if folder:
        given.update(config=str(folder.config), work_dir=str(folder.folder))
    return _options(TrainOptions, given)


def test_options(args: argparse.Namespace) -> TestOptions:
    """The options of `test`."""
    return _options(TestOptions, vars(args))


def folder_options(args: argparse.Namespace) -> AutoTrainOptions | None:
    """`--data` and the like, if they are given.

    Raises:
        UsageError: some of them are lacking, or others do not go with them.
    """
    if args.config and not (args.data or args.model):
        return None
    if args.config or not args.data or not args.model:
        raise UsageError('give either a config, or both --data FOLDER and --model NAME')
    options = AutoTrainOptions(**{field.name: getattr(args, field.name) for field in fields(AutoTrainOptions)})
    if args.launcher != 'none':
        raise UsageError(
            f'several processes train a config: make it first, with --plan-only and without launcher, then '
            f'start them with {options.config}'
        )
    return options


def _options(kind: type[T], given: Mapping[str, Any]) -> T:
    return kind(**{field.name: given[field.name] for field in fields(kind) if given.get(field.name) is not None})
