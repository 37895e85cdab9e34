"""Define the options of `predict`: the outputs, how they are drawn, and how images are read."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

import numpy as np

from mmseg_volo.errors import UsageError

OUTPUTS = {
    'masks': 'class indices',
    'colours': 'the mask in the colours of the classes',
    'overlays': 'the colours over the image, with a legend',
    'confidence': 'probability of the predicted class',
    'probabilities': 'probability of each class',
    'polygons': 'GeoJSON',
    'areas': 'areas.csv: pixels, share and, for GeoTIFFs, square metres on the ground, of each class',
}
OUTPUT_TO_MAP = {'confidence': 'confidence', 'probabilities': 'probability'}  # output -> map of the segmentor


@dataclass(frozen=True)
class Options:
    """How files are predicted.

    Args:
        outputs: any of OUTPUTS.
        opacity: opacity of the overlay, 0 to 1.
        windows: side in pixels of sliding windows at the image's full resolution, overlapping by a third, instead of
            the model's `test_cfg` and the resizing in its test pipeline.
        bands: bands to read as red, green and blue, counted from 1; those that the file declares if None.
        value_range: pixel values to map to black and white; the rules of `mmseg_volo.io.value_range` if None.
        frames: write masks and confidence of videos as one PNG file per frame, instead of a lossless video.

    Raises:
        UsageError: a value is invalid.
    """

    outputs: Sequence[str] = ('masks', 'overlays')
    opacity: float = 0.5
    windows: int | None = None
    bands: Sequence[int] | None = None
    value_range: Sequence[float] | None = None
    frames: bool = False

    def __post_init__(self) -> None:
        for name in self.outputs:
            if name not in OUTPUTS:
                close = difflib.get_close_matches(name, OUTPUTS, 1)
                hint = f'; did you mean {close[0]!r}?' if close else ''
                raise UsageError(f'outputs are some of {", ".join(OUTPUTS)}, separated by commas, got {name!r}{hint}')
        if not self.outputs:
            raise UsageError(f'expected at least one output of {", ".join(OUTPUTS)}')
        if not 0 <= self.opacity <= 1:
            raise UsageError(f'opacity must lie in 0..1, got {self.opacity}')
        if self.windows is not None and not (_are_numbers([self.windows], int) and self.windows >= 32):
            raise UsageError(f'windows must be at least 32 pixels wide, got {self.windows!r}')
        if self.bands is not None and not (_are_numbers(self.bands, int) and min(self.bands) >= 1):
            raise UsageError(f'bands are counted from 1, got {self.bands!r}')
        span = self.value_range
        if span is not None and not (_are_numbers(span, float) and len(span) == 2 and -inf < span[0] < span[1] < inf):
            raise UsageError(f'the value range must go from low to high, got {span!r}')

    @property
    def maps(self) -> list[str]:
        """The maps that the outputs need beside the mask."""
        return [OUTPUT_TO_MAP[name] for name in self.outputs if name in OUTPUT_TO_MAP]


def _are_numbers(values: Any, kind: type) -> bool:
    """Return whether it is a non-empty sequence of numbers."""
    kinds = (int, np.integer) if kind is int else (int, float, np.integer, np.floating)
    plain = isinstance(values, (list, tuple, range, np.ndarray)) and len(values) > 0
    return plain and all(isinstance(value, kinds) and not isinstance(value, bool) for value in values)
