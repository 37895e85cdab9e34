"""How much of each image each class takes, as a table."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

COLUMNS = ('class', 'index', 'pixels', 'share', 'square_metres')


def count(mask: np.ndarray, classes: int) -> np.ndarray:
    """Pixels of each class (classes,), int64; what is no class, as nodata, is not counted."""
    return np.bincount(mask.ravel(), minlength=classes)[:classes]


def table(entries: Iterable[Mapping[str, Any]], classes: Sequence[str], first: str = 'file') -> bytes:
    """A line per file, or frame, and class.

    Args:
        entries: of each what `first` says, `pixels` of each class, and maybe `square_metres` of a pixel.
        first: name of the first column.
    """
    text = io.StringIO()
    lines = csv.writer(text, lineterminator='\n')
    lines.writerow([first, *COLUMNS])
    for entry in entries:
        total, metres = sum(entry['pixels']), entry.get('square_metres')
        for i, (name, pixels) in enumerate(zip(classes, entry['pixels'], strict=True)):
            square_metres = '' if metres is None else f'{pixels * metres:.3f}'
            lines.writerow([entry[first], name, i, pixels, f'{pixels / max(total, 1):.6f}', square_metres])
    return text.getvalue().encode()
