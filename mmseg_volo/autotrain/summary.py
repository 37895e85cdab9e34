"""Format the classes of a data set as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mmseg_volo.autotrain.image_stats import ImageStats
from mmseg_volo.autotrain.label_map import Labels
from mmseg_volo.datasets.check.files import IGNORED
from mmseg_volo.datasets.lists import spelled
from mmseg_volo.utils.text import format_table

ROWS = 40  # shown of a longer table


def class_table(labels: Labels, facts: Mapping[str, Sequence[ImageStats]], weights: Sequence[float] | None) -> str:
    """Format the codes of each class, its share of all pixels, and the number of masks of each split that hold it.

    Args:
        labels: the meaning of mask values.
        facts: statistics of the images of each split.
        weights: class weights of the loss.
    """
    names = [*labels.classes, IGNORED]
    pixels, holding = ({split: np.zeros(len(names), np.int64) for split in facts} for _ in range(2))
    for split, stats in facts.items():
        for fact in stats:
            for index, count in labels.pixels(fact).items():
                row = min(index, len(names) - 1)
                pixels[split][row] += count
                holding[split][row] += 1
    codes = [spelled(code) for code in labels.rule.codes]
    codes.append(' and '.join(spelled(code) for code in labels.rule.ignored) or '-')
    rows = [('class', labels.rule.kind, *(f'{split}: pixels, masks' for split in facts), 'weight')]
    for i, name in enumerate(names):
        shares = [100 * pixels[split][i] / max(1, pixels[split].sum()) for split in facts]
        cells = [f'{share:.3f} %, {holding[split][i]}' for share, split in zip(shares, facts, strict=True)]
        weight = f'{weights[i]:.2f}' if weights and i < len(weights) else '-'
        rows.append((name, codes[i], *cells, weight))
    if len(rows) <= ROWS + 2:
        return format_table(rows)
    return f'{format_table([*rows[: ROWS + 1], rows[-1]])}\nand {len(rows) - ROWS - 2} classes more'
