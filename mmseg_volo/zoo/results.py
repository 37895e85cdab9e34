"""Read the results and costs of the shipped configs from `results.yml`, and update its estimated costs.

The docstring of each config, its recipe card, ends with the same facts: see `Results.card`.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

RESULTS = Path(__file__).with_name('results.yml')
GPU, SHARE = 'A100', 0.15  # GPU that costs are estimated for, and the assumed share of its bf16 peak
NOT_TRAINED = 'not trained by us'
STYLE: dict[str, Any] = dict(default_flow_style=None, sort_keys=False, allow_unicode=True, width=120)  # of the file


@dataclass(frozen=True)
class PublishedResult:
    """Hold the mIoU in percent that the authors of a backbone have published."""

    source: str  # where the numbers stand; without numbers, what is known instead
    single_scale: float | None = None
    multi_scale: float | None = None  # with flips

    def __str__(self) -> str:
        if self.multi_scale is None:
            return self.source
        source = self.source if self.source.startswith('[') else f'({self.source})'
        if self.single_scale is None:
            return f'{self.multi_scale:.1f} mIoU, multi-scale {source}'
        return f'{self.single_scale:.1f} mIoU single scale, {self.multi_scale:.1f} multi-scale {source}'


@dataclass(frozen=True)
class OwnResult:
    """Hold the mIoU in percent that we have reached."""

    note: str  # what it was measured on; without a number, where it stands
    miou: float | None = None

    def __str__(self) -> str:
        return self.note if self.miou is None else f'{self.miou:.1f} mIoU {self.note}'


@dataclass(frozen=True)
class CostEstimate:
    """Hold the estimated cost of a training, rounded as it is printed."""

    hours: float
    gpus: int
    memory: int  # GB of each GPU
    note: str = ''  # other costs that are known, e.g. what the authors took

    @property
    def sentence(self) -> str:
        """The estimate as recipe cards state it, without the note."""
        hours = f'{self.hours:.0f}' if self.hours >= 9.95 else f'{self.hours:.1f}'
        return (
            f'estimated {hours} h on {self.gpus} {GPU} at {100 * SHARE:.0f} % of their bf16 peak, '
            f'{self.memory} GB each (tools/recipe_cost.py); not measured.'
        )

    def __str__(self) -> str:
        return f'{self.sentence} {self.note}'.rstrip(' .')


@dataclass(frozen=True)
class Results:
    """Hold the results and the cost of a config."""

    published: PublishedResult
    ours: OwnResult
    cost: CostEstimate | str  # a text where it was measured

    @property
    def card(self) -> str:
        """The end of the config's docstring, in one line."""
        return f'Cost: {self.cost}. Published: {self.published}. Ours: {self.ours}.'


@functools.cache
def read_results(path: Path = RESULTS) -> Mapping[str, Results]:
    """Read the results of every shipped config, by its name."""
    return {name: _parse(entry) for name, entry in yaml.safe_load(path.read_text()).items()}


def _parse(entry: Mapping[str, Any]) -> Results:
    ours, cost = entry['ours'], entry['cost']
    return Results(
        PublishedResult(**entry['published']),
        OwnResult(NOT_TRAINED) if ours is None else OwnResult(**ours),
        cost if isinstance(cost, str) else CostEstimate(**cost),
    )


def write_estimate(config: Path, estimate: CostEstimate, path: Path = RESULTS) -> bool:
    """Replace a config's estimate in the data and in its recipe card; notes stay.

    Returns:
        Whether both held the same estimate; else nothing is written.
    """
    results, card = read_results(path).get(config.stem), config.read_text()
    if results is None or not isinstance(results.cost, CostEstimate) or results.cost.sentence not in card:
        return False
    if estimate.sentence != results.cost.sentence:
        config.write_text(card.replace(results.cost.sentence, estimate.sentence, 1))
        comment, _, text = path.read_text().partition('\n\n')
        entries = yaml.safe_load(text)
        entries[config.stem]['cost'].update(hours=estimate.hours, gpus=estimate.gpus, memory=estimate.memory)
        path.write_text(f'{comment}\n\n{yaml.safe_dump(entries, **STYLE)}')
        read_results.cache_clear()
    return True
