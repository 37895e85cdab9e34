"""Check the options of `train --data FOLDER ... --resume` against the recipe of the training, and set its length."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmseg_volo.autotrain import recipe as plan
from mmseg_volo.autotrain.config_writer import edited, note_written
from mmseg_volo.autotrain.options import AutoTrainOptions
from mmseg_volo.config import load_config
from mmseg_volo.datasets.lists import UNDERSTOOD
from mmseg_volo.errors import UsageError
from mmseg_volo.redaction import redact
from mmseg_volo.utils.files import write_whole

OPTIONS_FILE = '.wishes.json'  # of a recipe: the options that it was written with
IN_CONFIG = ('size', 'batch', 'seed', 'epochs')  # options that the config of a recipe holds
OF_PLACE = ('work_dir', 'overwrite')
Keys = tuple[str | int, ...]  # of nested values of a config
LENGTH = re.compile(r'(?m)^(length:? +)\d+( iterations of \d+ images = )\d+( epochs; validated every )\d+')


def as_text(options: AutoTrainOptions) -> str:
    """Return the options that a recipe stores, as JSON without secrets."""
    kept = {key: value for key, value in asdict(options).items() if key not in OF_PLACE}
    return json.dumps(redact({**kept, 'data': str(Path(options.data).absolute())}), indent=1)


def update_recipe(options: AutoTrainOptions) -> None:
    """Compare options with the recipe of a training, and set its length to `--epochs`.

    Raises:
        UsageError: an option differs from the recipe, or its length cannot be set.
    """
    cfg, count = load_config(options.config), _count(options.config.with_name('train.csv'))
    if differing := [*_differing(options, cfg)]:
        raise UsageError(
            f'--resume goes on with {options.folder} as it was started, and its recipe has '
            f'{" and ".join(differing)}: leave that out, or choose another --work-dir'
        )
    if options.epochs is not None:
        iters = plan.length_of(count, cfg.train_dataloader.batch_size, options.epochs, False)
        if iters != cfg.train_cfg.max_iters:
            _set_length(options, cfg.to_dict(), iters, count)


def _count(path: Path) -> int:
    return len(path.read_text(encoding='utf-8').splitlines()) - 1


def _differing(options: AutoTrainOptions, cfg: Config) -> Iterator[str]:
    """Describe the options that are given and differ from the recipe."""
    try:
        then = json.loads((options.config.parent / OPTIONS_FILE).read_text(encoding='utf-8'))
    except (OSError, ValueError):  # the recipe is older, or edited
        then = {}
    now = json.loads(as_text(options))
    for key, value in now.items():
        if key not in IN_CONFIG and key in then and value not in (None, [], False, then[key]):
            yield _both(key, then[key], value)
    if options.size and tuple(cfg.crop_size) != (options.size[0], options.size[-1]):
        yield _both('size', cfg.crop_size, options.size)
    for key, theirs in (('batch', cfg.train_dataloader.batch_size), ('seed', cfg.get('randomness', {}).get('seed'))):
        if getattr(options, key) not in (None, theirs):
            yield _both(key, theirs, getattr(options, key))


def _both(key: str, theirs: Any, asked: Any) -> str:
    option = f'--{key.replace("_", "-")}'
    if isinstance(asked, bool):
        return f'no {option}'
    old, new = (' '.join(map(str, v)) if isinstance(v, (list, tuple)) else v for v in (theirs, asked))
    return f'{option} {old}, not {new}' if theirs not in (None, [], False) else f'no {option}, not {new}'


def _set_length(options: AutoTrainOptions, cfg: dict[str, Any], iters: int, count: int) -> None:
    """Write another length into a recipe: the numbers of its config, and the words of its card and summary."""
    done = max((int(path.stem.removeprefix('iter_')) for path in options.folder.glob('iter_*.pth')), default=0)
    if iters < done:
        raise UsageError(f'--epochs {options.epochs:g} are {iters} iterations, and {done} are done: give more epochs')
    text, changes = options.config.read_text(encoding='utf-8'), [*_changes(cfg, iters)]
    for keys, old, new in changes:
        text = _with_number(text, keys, old, new, options.config)
    batch = cfg['train_dataloader']['batch_size']
    words = rf'\g<1>{iters}\g<2>{iters * batch / count:.0f}\g<3>{cfg["train_cfg"]["val_interval"]}'
    summary = options.config.with_name(UNDERSTOOD)
    texts = {options.config: LENGTH.sub(words, text, count=1)}
    if summary.is_file():
        texts[summary] = LENGTH.sub(words, summary.read_text(encoding='utf-8'), count=1)
    untouched = [path for path in texts if path.name not in edited(path.parent)]
    for path, content in texts.items():
        write_whole(path, content.encode())
    note_written(options.config.parent, untouched)


def _changes(cfg: dict[str, Any], iters: int) -> Iterator[tuple[Keys, int, int]]:
    """Yield (keys, old number, new number) where another length changes a config; changes `cfg`."""
    paths: list[Keys] = [('train_cfg', 'max_iters'), ('train_cfg', 'val_interval')]
    paths.append(('default_hooks', 'checkpoint', 'interval'))
    paths += [('param_scheduler', i, key) for i in range(len(cfg['param_scheduler'])) for key in ('begin', 'end')]
    before = {keys: _at(cfg, keys) for keys in paths}
    plan.set_length(cfg, iters)
    for keys, number in before.items():
        if number is not None:
            yield keys, number, _at(cfg, keys)


def _at(cfg: Any, keys: Keys) -> Any:
    for key in keys:
        cfg = cfg[key] if isinstance(key, int) else cfg.get(key)
    return cfg


def _with_number(text: str, keys: Keys, old: int, new: int, path: Path) -> str:
    """Replace the number under some keys in the text of a config.

    Raises:
        UsageError: the old number is not there.
    """
    variables: dict[str | int, ast.expr] = {
        statement.targets[0].id: statement.value
        for statement in ast.parse(text).body
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name)
    }
    node = variables.get(keys[0])
    for key in keys[1:]:
        node = _child(node, key)
    if not isinstance(node, ast.Constant) or node.value != old:
        where = '.'.join(map(str, keys))
        raise UsageError(f'{path} was edited, and {where} is no number there: set it to {new}, and leave out --epochs')
    lines = text.encode().splitlines(keepends=True)
    line = lines[node.lineno - 1]
    lines[node.lineno - 1] = line[: node.col_offset] + str(new).encode() + line[node.end_col_offset :]
    return b''.join(lines).decode()


def _child(node: ast.expr | None, key: str | int) -> ast.expr | None:
    """Return the value under a key of `dict(...)`, `{...}`, `[...]` or `(...)`."""
    if isinstance(key, int):
        return node.elts[key] if isinstance(node, (ast.List, ast.Tuple)) and key < len(node.elts) else None
    if isinstance(node, ast.Call):
        return next((word.value for word in node.keywords if word.arg == key), None)
    if isinstance(node, ast.Dict):
        pairs = zip(node.keys, node.values, strict=True)
        return next((value for name, value in pairs if isinstance(name, ast.Constant) and name.value == key), None)
    return None
