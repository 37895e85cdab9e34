"""Parse `--cfg-options KEY=VALUE ...`, check that the config accepts each key, and merge them into it."""

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

CODE = re.compile(r'(?:dict|set|frozenset|list|tuple)\s*\(|lambda\b|\{')  # a value may not start with these
BRACKETS = {'(': ')', '[': ']'}
REGISTRIES = {  # first name of a key -> registry of its types
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
READ_BY_MMENGINE = {  # keys that mmengine reads, besides the arguments of the class
    OPTIM_WRAPPERS: {'constructor', 'paramwise_cfg'},
    HOOKS: {'priority'},
    PARAM_SCHEDULERS: {'convert_to_iter_based'},
}
PLAIN_KEYS = dict(randomness={'seed', 'diff_rank_seed', 'deterministic'}, auto_scale_lr={'enable', 'base_batch_size'})
SPECIAL = {'type', '_scope_', '_delete_'}


def parse(pairs: Sequence[str]) -> dict[str, Any]:
    """Parse `KEY=VALUE` as mmengine's `DictAction` does, but keep spaces inside a value.

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
    entries = [*_split(text[1:-1] if is_list else text, key)] if is_list or ',' in text else None
    if entries is None or entries == [text] or text[:1] in '\'"' and text[0] == text[-1] and text.count(text[0]) == 2:
        return _scalar(text)
    values = [_value(entry, key) for entry in entries]
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
    """Return the index at which the bracket that a text starts with is closed."""
    closing = []
    for index, sign in enumerate(text):
        if sign in BRACKETS:
            closing.append(BRACKETS[sign])
        elif sign in BRACKETS.values() and (not closing or closing.pop() != sign):
            break
        if not closing:
            return index
    raise UsageError(f'--cfg-options {key}: the brackets of {text!r} do not match')


def _split(text: str, key: str) -> Iterator[str]:
    """Split a text at the commas outside brackets."""
    start = index = 0
    while index < len(text):
        if text[index] in BRACKETS:
            index += _end(text[index:], key)
        elif text[index] in BRACKETS.values():
            raise UsageError(f'--cfg-options {key}: the brackets of {text!r} do not match')
        elif text[index] == ',':
            yield text[start:index].strip()
            start = index + 1
        index += 1
    if text[start:].strip():
        yield text[start:].strip()


def _with_dots(text: str, key: str) -> str:
    """Return advice to write a dict as dotted keys."""
    try:
        node = ast.parse(text, mode='eval').body
        pairs = [(word.arg, word.value) for word in node.keywords] if isinstance(node, ast.Call) else []
        if isinstance(node, ast.Dict):
            entries = zip(node.keys, node.values, strict=True)  # the key of `**mapping` is None
            pairs = [(str(ast.literal_eval(name)) if name else None, value) for name, value in entries]
        words = [f'{key}.{name}={ast.unparse(value).strip(chr(39))}' for name, value in pairs if name]
        options = ' '.join([f'{key}._delete_=True', *words]) if words else ''
    except (SyntaxError, ValueError, TypeError):
        options = ''
    if key == 'custom_hooks':
        return f'write {" and ".join(_hooks(text)) or "default_hooks.NAME.type=HOOK"}, which adds a hook'
    return f'write its keys with dots, {options or f"{key}.KEY=VALUE"}'


def _hooks(text: str) -> Iterator[str]:
    """Yield options that add the hooks that a text names."""
    for kind in re.findall(r'type\W{1,5}(\w+)', text):
        yield f'default_hooks.{kind.removesuffix("Hook").lower()}.type={kind}'


def merge(cfg: Config, options: Mapping[str, Any]) -> None:
    """Merge options into a config.

    Raises:
        UsageError: a key does not exist in the config, or nothing reads it.
    """
    before = cfg.to_dict()
    refuse_places(before, options)
    make_room(cfg, options)
    cfg.merge_from_dict(dict(options))
    refuse_unknown(before, cfg.to_dict(), options)


def refuse_unknown(before: Mapping[str, Any], merged: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    """Refuse new keys that their component does not accept.

    Args:
        before: the config without the options.
        merged: the config with them.
        options: dotted keys to values.

    Raises:
        UsageError: the component has no such key.
    """
    for key in options:
        names = key.split('.')
        for depth, name in enumerate(names):
            old, new = _at(before, names[:depth]), _at(merged, names[:depth])
            if isinstance(old, Mapping) and name in old or not isinstance(new, Mapping) or name in SPECIAL or not depth:
                continue
            accepted, closed = _accepted(names[:depth], new)
            others = {*accepted, *(old if isinstance(old, Mapping) else ())}
            close = difflib.get_close_matches(name, others - {name}, 2, 0.6 if closed else 0.85)
            if name not in accepted and (closed or close):
                hint = f'; did you mean {" or ".join(close)}?' if close else f': it takes {", ".join(sorted(others))}'
                raise UsageError(f'--cfg-options {key}: {".".join(names[:depth])} has no {name!r}{hint}')
            break  # everything below is new as well


def refuse_places(cfg: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    """Refuse keys that lead through anything but dicts and lists of the config.

    Raises:
        UsageError: an index is beyond a list, or a key is below a value that is no dict or list.
    """
    for key in options:
        names = key.split('.')
        if '' in names:
            raise UsageError(f'--cfg-options {key}: expected names between the dots')
        for depth, name in enumerate(names):
            value, parent = _at(cfg, names[:depth]), '.'.join(names[:depth])
            if isinstance(value, (list, tuple)) and not (name.isdecimal() and int(name) < len(value)):
                raise UsageError(
                    f'--cfg-options {key}: {parent} is a list of {len(value)}, counted from 0, and has no {name!r}'
                )
            if depth and value is not None and not isinstance(value, (Mapping, list, tuple)):
                raise UsageError(f'--cfg-options {key}: {parent} is {value!r}, which has no {name!r}')


def make_room(cfg: Config, options: Mapping[str, Any]) -> None:
    """Replace None by an empty dict where a key leads through it, as `clip_grad=None`: mmengine would not merge it."""
    for key in options:
        *names, _ = key.split('.')
        for depth, name in enumerate(names):
            parent = _at(cfg._cfg_dict, names[:depth])
            if isinstance(parent, dict) and name in parent and parent[name] is None:
                parent[name] = {}


def _at(value: Any, names: Sequence[str]) -> Any:
    for name in names:
        if isinstance(value, (list, tuple)) and name.isdecimal() and int(name) < len(value):
            value = value[int(name)]
        else:
            value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _accepted(path: Sequence[str], value: Mapping[str, Any]) -> tuple[set[str], bool]:
    """Return the keys that a component of a config accepts, and whether these are all."""
    if len(path) == 1 and (path[0] in PLAIN_KEYS or path[0].endswith('_dataloader')):
        return PLAIN_KEYS.get(path[0], LOADER), True
    registry = next((INNER[name] for name in reversed(path) if name in INNER), REGISTRIES.get(path[0]))
    kind = value.get('type', 'OptimWrapper' if [*path] == ['optim_wrapper'] else None)
    component = kind if isinstance(kind, type) else _class(registry, kind)
    if component is None:
        return set(), False
    names = set(READ_BY_MMENGINE.get(registry, ()))
    for base in component.__mro__:
        if '__init__' in vars(base):
            parameters = inspect.signature(vars(base)['__init__']).parameters.values()
            names |= {p.name for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)} - {'self'}
            if not any(p.kind == p.VAR_KEYWORD for p in parameters):
                return names, True
    return names, False


def _class(registry: Registry | None, kind: Any) -> type | None:
    if registry is None or not isinstance(kind, str):
        return None
    try:
        with registry.switch_scope_and_registry('mmseg_volo') as known:
            component = known.get(kind)
    except (ImportError, KeyError):
        return None
    return component if isinstance(component, type) else None
