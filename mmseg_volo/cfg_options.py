"""`--cfg-options KEY=VALUE ...`: what may stand there, and whether a config has such a key."""

from __future__ import annotations

import ast
import difflib
import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mmengine.config import Config
from mmengine.registry import (
    DATA_SAMPLERS,
    DATASETS,
    HOOKS,
    LOOPS,
    METRICS,
    MODELS,
    OPTIM_WRAPPERS,
    OPTIMIZERS,
    PARAM_SCHEDULERS,
    TRANSFORMS,
    Registry,
)
from torch.utils.data import DataLoader

from mmseg_volo.errors import UsageError

CODE = re.compile(r'(?:dict|set|frozenset|list|tuple)\s*\(|lambda\b|\{')  # what a value may not begin with
BRACKETS = {'(': ')', '[': ']'}
REGISTRIES = {  # first or second part of a key -> where its types are
    'model': MODELS,
    'tta_model': MODELS,
    'default_hooks': HOOKS,
    'custom_hooks': HOOKS,
    'train_cfg': LOOPS,
    'val_cfg': LOOPS,
    'test_cfg': LOOPS,
    'val_evaluator': METRICS,
    'test_evaluator': METRICS,
    'optim_wrapper': OPTIM_WRAPPERS,
    'param_scheduler': PARAM_SCHEDULERS,
}
INNER = dict(dataset=DATASETS, pipeline=TRANSFORMS, sampler=DATA_SAMPLERS, optimizer=OPTIMIZERS)
LOADER = {*inspect.signature(DataLoader).parameters, 'num_batch_per_epoch'}
READ_BY_MMENGINE = {  # beside what a class takes
    OPTIM_WRAPPERS: {'constructor', 'paramwise_cfg'},
    HOOKS: {'priority'},
    PARAM_SCHEDULERS: {'convert_to_iter_based'},
}
PLAIN_KEYS = dict(randomness={'seed', 'diff_rank_seed', 'deterministic'}, auto_scale_lr={'enable', 'base_batch_size'})
SPECIAL = {'type', '_scope_', '_delete_'}


def parse(pairs: Sequence[str]) -> dict[str, Any]:
    """`KEY=VALUE` as mmengine's `DictAction` reads it, with the spaces that a value has.

    Raises:
        UsageError: there is no `=`, brackets do not match, or a value is Python code.
    """
    options = {}
    for pair in pairs:
        key, sign, text = pair.partition('=')
        if not sign or not key.strip():
            raise UsageError(f'--cfg-options takes KEY=VALUE, got {pair!r}')
        options[key.strip()] = _value(text.strip(), key.strip())
    return options


def _value(text: str, key: str) -> Any:
    if CODE.match(text):
        raise UsageError(
            f'--cfg-options {key}: expected a number, a word or a list, got {text!r}: {_with_dots(text, key)}'
        )
    is_list = text[:1] in BRACKETS and _end(text, key) == len(text) - 1
    parts = [*_split(text[1:-1] if is_list else text, key)] if is_list or ',' in text else None
    if parts in (None, [text]) or text[:1] in '\'"' and text[0] == text[-1] and text.count(text[0]) == 2:
        return _scalar(text)
    values = [_value(part, key) for part in parts]
    return tuple(values) if is_list and text[0] == '(' else values


def _scalar(text: str) -> Any:
    text = text.strip('\'"')
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return {'true': True, 'false': False}.get(text.lower(), None if text == 'None' else text)


def _end(text: str, key: str) -> int:
    """Where the bracket that a text begins with is closed."""
    open_ones = []
    for place, sign in enumerate(text):
        if sign in BRACKETS:
            open_ones.append(BRACKETS[sign])
        elif sign in BRACKETS.values() and (not open_ones or open_ones.pop() != sign):
            break
        if not open_ones:
            return place
    raise UsageError(f'--cfg-options {key}: the brackets of {text!r} do not match')


def _split(text: str, key: str) -> Iterator[str]:
    """Parts of a text between commas that stand in no brackets."""
    start = place = 0
    while place < len(text):
        if text[place] in BRACKETS:
            place += _end(text[place:], key)
        elif text[place] in BRACKETS.values():
            raise UsageError(f'--cfg-options {key}: the brackets of {text!r} do not match')
        elif text[place] == ',':
            yield text[start:place].strip()
            start = place + 1
        place += 1
    if text[start:].strip():
        yield text[start:].strip()


def _with_dots(text: str, key: str) -> str:
    """How to write a dict."""
    try:
        node = ast.parse(text, mode='eval').body
        pairs = [(word.arg, word.value) for word in node.keywords] if isinstance(node, ast.Call) else []
        if isinstance(node, ast.Dict):
            pairs = [(str(ast.literal_eval(name)), value) for name, value in zip(node.keys, node.values, strict=True)]
        words = [f'{key}.{name}={ast.unparse(value).strip(chr(39))}' for name, value in pairs if name]
        given = ' '.join([f'{key}._delete_=True', *words]) if words else ''
    except (SyntaxError, ValueError, TypeError):
        given = ''
    if key == 'custom_hooks':
        return f'write {" and ".join(_hooks(text)) or "default_hooks.NAME.type=HOOK"}, which adds a hook'
    return f'write its keys with dots, {given or f"{key}.KEY=VALUE"}'


def _hooks(text: str) -> Iterator[str]:
    """Options that add the hooks of which a text tells."""
    for kind in re.findall(r'type\W{1,5}(\w+)', text):
        yield f'default_hooks.{kind.removesuffix("Hook").lower()}.type={kind}'


def merge(cfg: Config, options: Mapping[str, Any]) -> None:
    """Applies options to a config.

    Raises:
        UsageError: a key leads nowhere, or nothing reads it.
    """
    before = cfg.to_dict()
    refuse_places(before, options)
    make_room(cfg, options)
    cfg.merge_from_dict(dict(options))
    refuse_unknown(before, cfg.to_dict(), options)


def refuse_unknown(before: Mapping[str, Any], merged: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    """A key that is new must be one that the part of the config which it is for takes.

    Args:
        before: the config without the options.
        merged: the config with them.
        options: dotted keys to values.

    Raises:
        UsageError: it takes no such key.
    """
    for key in options:
        parts = key.split('.')
        for place, name in enumerate(parts):
            old, new = _at(before, parts[:place]), _at(merged, parts[:place])
            if isinstance(old, Mapping) and name in old or not isinstance(new, Mapping) or name in SPECIAL or not place:
                continue
            taken, closed = _taken(parts[:place], new)
            others = {*taken, *(old if isinstance(old, Mapping) else ())}
            close = difflib.get_close_matches(name, others - {name}, 2, 0.6 if closed else 0.85)
            if name not in taken and (closed or close):
                hint = f'; did you mean {" or ".join(close)}?' if close else f': it takes {", ".join(sorted(others))}'
                raise UsageError(f'--cfg-options {key}: {".".join(parts[:place])} has no {name!r}{hint}')
            break  # what is below is new


def refuse_places(cfg: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    """A key leads through dicts and lists of the config only.

    Raises:
        UsageError: an index is beyond a list, or a key below a value that has none.
    """
    for key in options:
        parts = key.split('.')
        if '' in parts:
            raise UsageError(f'--cfg-options {key}: expected names between the dots')
        for place, name in enumerate(parts):
            value, above = _at(cfg, parts[:place]), '.'.join(parts[:place])
            if isinstance(value, (list, tuple)) and not (name.isdecimal() and int(name) < len(value)):
                raise UsageError(
                    f'--cfg-options {key}: {above} is a list of {len(value)}, counted from 0, and has no {name!r}'
                )
            if place and value is not None and not isinstance(value, (Mapping, list, tuple)):
                raise UsageError(f'--cfg-options {key}: {above} is {value!r}, which has no {name!r}')


def make_room(cfg: Config, options: Mapping[str, Any]) -> None:
    """Puts a dict where a key leads through None, as `clip_grad=None`, into which mmengine would merge nothing."""
    for key in options:
        *parts, _ = key.split('.')
        for place, name in enumerate(parts):
            above = _at(cfg._cfg_dict, parts[:place])
            if isinstance(above, Mapping) and name in above and above[name] is None:
                above[name] = {}


def _at(value: Any, parts: Sequence[str]) -> Any:
    for name in parts:
        if isinstance(value, (list, tuple)) and name.isdecimal() and int(name) < len(value):
            value = value[int(name)]
        else:
            value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _taken(parts: Sequence[str], value: Mapping[str, Any]) -> tuple[set[str], bool]:
    """Names that a part of a config takes, and whether these are all."""
    if len(parts) == 1 and (parts[0] in PLAIN_KEYS or parts[0].endswith('_dataloader')):
        return PLAIN_KEYS.get(parts[0], LOADER), True
    registry = next((INNER[name] for name in reversed(parts) if name in INNER), REGISTRIES.get(parts[0]))
    kind = value.get('type', 'OptimWrapper' if [*parts] == ['optim_wrapper'] else None)
    found = kind if isinstance(kind, type) else _class(registry, kind)
    if found is None:
        return set(), False
    names = set(READ_BY_MMENGINE.get(registry, ()))
    for part in found.__mro__:
        if '__init__' in vars(part):
            given = inspect.signature(part.__init__).parameters.values()
            names |= {p.name for p in given if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)} - {'self'}
            if not any(p.kind == p.VAR_KEYWORD for p in given):
                return names, True
    return names, False


def _class(registry: Registry | None, kind: Any) -> type | None:
    if registry is None or not isinstance(kind, str):
        return None
    try:
        with registry.switch_scope_and_registry('mmseg_volo') as known:
            found = known.get(kind)
    except (ImportError, KeyError):
        return None
    return found if isinstance(found, type) else None
