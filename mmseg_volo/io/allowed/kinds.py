"""Define the kinds of values that a checkpoint may give as arguments. None accepts arbitrary text: words are listed."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

START = ('init_cfg', 'pretrained')  # initial weights of the training: the checkpoint has its own
SHOWN = 60  # characters of a value in a message
MOST = 65536  # entries of a list: class indices are uint16
LARGEST = 1e38  # number, which float32 can hold


class NotTaken(ValueError):
    """A value is of no accepted kind; the message is `KEY=VALUE`."""


def _not_taken(value: Any, where: str) -> NotTaken:
    """Describe any value in one short line."""
    if isinstance(value, Mapping) and 'type' in value:
        where, value = f'{where}.type' if where else 'type', value['type']
    return NotTaken(f'{where}={_shown(value)}')


def _shown(value: Any) -> str:
    if type(value) is str:
        return repr(value if len(value) <= SHOWN else f'{value[:SHOWN]}...')
    if type(value) is int and value.bit_length() > 64:
        return 'a very large number'
    return repr(value) if type(value) in (bool, int, float, type(None)) else f'a {type(value).__name__}'


def _entries(value: Any) -> Any:
    """Return a tensor as lists, as reading a checkpoint turns NumPy arrays into tensors; anything else unchanged."""
    plain = isinstance(value, Tensor) and value.layout is torch.strided and value.device.type == 'cpu'
    if plain and 1 <= value.ndim <= 2 and value.numel() <= MOST and not value.is_quantized:
        return value.tolist()
    return value


@dataclass(frozen=True)
class Nothing:
    """None."""

    def take(self, value: Any, where: str) -> None:
        """See `Part.take`."""
        if value is not None:
            raise _not_taken(value, where)


@dataclass(frozen=True)
class Flag:
    """True or False."""

    def take(self, value: Any, where: str) -> bool:
        """See `Part.take`."""
        if type(value) is not bool:
            raise _not_taken(value, where)
        return value


@dataclass(frozen=True)
class Number:
    """A finite number.

    Args:
        low, high: the smallest and the largest one.
    """

    low: float = -LARGEST
    high: float = LARGEST

    def take(self, value: Any, where: str) -> float:
        """See `Part.take`."""
        if type(value) not in (int, float) or not self.low <= value <= self.high:
            raise _not_taken(value, where)
        number: float = value
        return number


@dataclass(frozen=True)
class Integer(Number):
    """A whole number."""

    def take(self, value: Any, where: str) -> int:
        """See `Part.take`."""
        if type(value) is not int:
            raise _not_taken(value, where)
        super().take(value, where)
        return value


@dataclass(frozen=True)
class Word:
    """One of the listed words."""

    words: tuple[str, ...]

    def take(self, value: Any, where: str) -> str:
        """See `Part.take`."""
        if type(value) is not str or value not in self.words:
            raise _not_taken(value, where)
        return value


@dataclass(frozen=True)
class Name:
    """A name that is only displayed or used as a key.

    Args:
        pattern: regular expression of the whole name.
    """

    pattern: str

    def take(self, value: Any, where: str) -> str:
        """See `Part.take`."""
        if type(value) is not str or not re.fullmatch(self.pattern, value):
            raise _not_taken(value, where)
        return value


@dataclass(frozen=True)
class Several:
    """A list or tuple of one kind.

    Args:
        kind: of each entry.
        most: largest number of entries.
        exactly: number of entries, if it is fixed.
    """

    kind: Kind
    most: int = 64
    exactly: int | None = None

    def take(self, value: Any, where: str) -> list[Any] | tuple[Any, ...]:
        """See `Part.take`."""
        value = _entries(value)
        if not isinstance(value, (list, tuple)) or len(value) > self.most:
            raise _not_taken(value, where)
        if self.exactly not in (None, len(value)):
            raise NotTaken(f'{where}={len(value)} values for {self.exactly}')
        taken = [self.kind.take(entry, f'{where}[{i}]') for i, entry in enumerate(value)]
        return tuple(taken) if isinstance(value, tuple) else taken


@dataclass(frozen=True)
class Either:
    """Any of some kinds."""

    kinds: tuple[Kind, ...]

    def take(self, value: Any, where: str) -> Any:
        """See `Part.take`; the message is that of the kind that matched the deepest."""
        furthest = _not_taken(value, where)
        for kind in self.kinds:
            try:
                return kind.take(value, where)
            except NotTaken as error:
                if len(str(error).split('=')[0]) > len(str(furthest).split('=')[0]):
                    furthest = error
        raise furthest


@dataclass(frozen=True)
class Table:
    """A dict with some of the given keys, and no `type`."""

    arguments: Mapping[str, Kind]

    def take(self, value: Any, where: str) -> dict[str, Any]:
        """See `Part.take`."""
        return _arguments(value, self.arguments, where)


@dataclass(frozen=True)
class Needed:
    """A kind of an argument that must be given, as its default names a type that is not registered."""

    kind: Kind

    def take(self, value: Any, where: str) -> Any:
        """See `Part.take`."""
        return self.kind.take(value, where)


@dataclass(frozen=True)
class Part:
    """A component: a dict whose `type` is one of a group, with some of the arguments that this type accepts.

    Args:
        types: returns the arguments of each type; called late, as components contain components.
    """

    types: Callable[[], Mapping[str, Mapping[str, Kind]]]

    def take(self, value: Any, where: str) -> dict[str, Any]:
        """Return a value as plain data if it is of this kind.

        Args:
            value: of a checkpoint: anything.
            where: dotted key of the value, for the message.

        Raises:
            NotTaken: it is of another kind.
        """
        types = self.types()
        name = value['type'] if isinstance(value, Mapping) and 'type' in value else None
        if type(name) is not str or name not in types:
            raise _not_taken(value, where)
        rest = {key: value[key] for key in value if key != 'type'}
        return {'type': name, **_arguments(rest, types[name], where)}


Kind = Nothing | Flag | Number | Word | Name | Several | Either | Table | Needed | Part


def _arguments(value: Any, kinds: Mapping[str, Kind], where: str) -> dict[str, Any]:
    """Check the arguments of a component; `START`, which the weights make superfluous, is left out."""
    if not isinstance(value, Mapping):
        raise _not_taken(value, where)
    taken = {}
    for key in value:  # not by `items`, which the file may have replaced in an OrderedDict
        if type(key) is str and key in START:
            continue
        if type(key) is not str or key not in kinds:
            raise _not_taken(value[key], f'{where}[{_shown(key)}]')
        taken[key] = kinds[key].take(value[key], f'{where}.{key}'.lstrip('.'))
    for key, kind in kinds.items():
        if isinstance(kind, Needed) and key not in taken:
            raise NotTaken(f'{where} without {key}')
    return taken
