"""The recipe cards of configs, their docstrings, as data: the one place where published numbers stand."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from mmseg_volo.errors import UsageError

FIELDS = re.compile(r'^Cost: (?P<cost>.*?)^Published: (?P<published>.*?)\bOurs: (?P<ours>.*)\Z', re.M | re.S)
ESTIMATE = re.compile(r'^(Cost: )(estimated .*?; not measured\.)', re.M | re.S)
SHORT = re.compile(r'estimated (?P<hours>[\d.]+) h on (?P<gpus>\d+) (?P<gpu>\w+) at .*?, (?P<memory>\d+) GB each')
MIOU = re.compile(r'(?:([\d.]+) mIoU single scale, ([\d.]+)|([\d.]+) mIoU,) multi-scale (.*)')


class Card(NamedTuple):
    """What a docstring says of the results."""

    cost: str
    published: str
    ours: str

    @property
    def miou(self) -> tuple[str, str, str] | None:
        """Published mIoU at a single scale and at several, either may be empty, and where that stands; or None."""
        if not (found := MIOU.fullmatch(self.published)):
            return None
        single, multi, only, source = found.groups()
        return single or '', multi or only, source.strip('()')

    @property
    def estimate(self) -> tuple[float, int, str, int] | None:
        """Hours, number and name of GPUs, and GB of each, where the cost is an estimate."""
        if not (found := SHORT.match(self.cost)):
            return None
        return float(found['hours']), int(found['gpus']), found['gpu'], int(found['memory'])


def read_card(config: Path) -> Card:
    """The card of a config.

    Raises:
        UsageError: its docstring lacks Cost, Published or Ours, in this order, or begins the published result with a
            number in a form of its own.
    """
    docstring = re.match(r'"""(.*?)"""', config.read_text(), re.S)
    fields = FIELDS.search(docstring[1]) if docstring else None
    if not fields:
        raise UsageError(f'{config}: expected a docstring with Cost:, Published: and Ours: in this order')
    card = Card(*(' '.join(text.split()).rstrip('.') for text in fields.groups()))
    if card.miou is None and re.match(r'\d', card.published):
        raise UsageError(
            f'{config}: expected Published: "A mIoU single scale, B multi-scale (SOURCE)" or '
            f'"B mIoU, multi-scale (SOURCE)", got {card.published!r}'
        )
    return card


def write_estimate(config: Path, text: str) -> bool:
    """Replaces the estimate in a card by `text`; what follows it stays. Returns whether there was one."""
    old = config.read_text()
    new, count = ESTIMATE.subn(lambda found: found[1] + text, old, count=1)
    if new != old:
        config.write_text(new)
    return bool(count)
