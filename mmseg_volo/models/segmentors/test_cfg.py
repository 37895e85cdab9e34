"""Read and check the keys of `test_cfg` that set how predictions are made."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from mmseg_volo.errors import UsageError
from mmseg_volo.models.segmentors.windows import WEIGHTS

OPTIONAL_MAPS = ('probability', 'confidence', 'entropy')


@dataclass(frozen=True)
class PredictionOptions:
    """The keys of `test_cfg`; the first three are mmseg's.

    Args:
        mode: 'whole' or 'slide'.
        crop_size, stride: (height, width) of the sliding windows, and from one to the next, in pixels.
        window_batch: windows per call of the network; 1 on CPUs and 4 on GPUs if None.
        window_weight: 'uniform', or 'gaussian': pixels count less towards the border of a window.
        keep_logits: whether results hold `seg_logits`; if None they do, except inside `masks_only`.
        maps: further results, any of OPTIONAL_MAPS: `probability` of each class (C, H, W), and of each pixel (1, H, W)
            `confidence`, the probability of the predicted class, and `entropy` in nats.
        accumulate_on: 'cpu', 'cuda', ...: where logits are added up and results are kept; if None the network's device,
            or the CPU if the results would take more than half of the GPU's free memory.
    """

    mode: str = 'whole'
    crop_size: Sequence[int] | None = None
    stride: Sequence[int] | None = None
    window_batch: int | None = None
    window_weight: str = 'uniform'
    keep_logits: bool | None = None
    maps: Sequence[str] = ()
    accumulate_on: str | None = None

    @classmethod
    def of(cls, test_cfg: Mapping[str, Any] | None) -> PredictionOptions:
        """Read `test_cfg`; other keys than the fields are ignored.

        Raises:
            UsageError: a value is invalid, or a key is misspelt.
        """
        test_cfg = test_cfg or {}
        names = [field.name for field in fields(cls)]
        for key in test_cfg:
            if key not in names and (close := difflib.get_close_matches(key, names, n=1, cutoff=0.8)):
                raise UsageError(f'test_cfg: unknown key {key!r}; did you mean {close[0]!r}?')
        options = cls(**{key: value for key, value in test_cfg.items() if key in names})
        options._check()
        return options

    @property
    def windows(self) -> tuple[Sequence[int], Sequence[int]]:
        """The size and the stride of sliding windows; only with mode 'slide'."""
        assert self.crop_size is not None and self.stride is not None
        return self.crop_size, self.stride

    def _check(self) -> None:
        if self.mode not in ('whole', 'slide'):
            raise UsageError(f"test_cfg: mode must be 'whole' or 'slide', got {self.mode!r}")
        if self.mode == 'slide':
            for name in ('crop_size', 'stride'):
                value = getattr(self, name)
                if not isinstance(value, Sequence) or len(value) != 2 or min(value) < 1:
                    raise UsageError(f'test_cfg: {name} must be two numbers of pixels (height, width), got {value!r}')
            if any(s > c for c, s in zip(*self.windows, strict=True)):
                raise UsageError(f'test_cfg: stride {self.stride} leaves gaps between windows of {self.crop_size}')
        if self.window_batch is not None and self.window_batch < 1:
            raise UsageError(f'test_cfg: window_batch must be 1 or more, got {self.window_batch!r}')
        if self.window_weight not in WEIGHTS:
            raise UsageError(f'test_cfg: window_weight must be one of {WEIGHTS}, got {self.window_weight!r}')
        if isinstance(self.maps, str) or not set(self.maps) <= set(OPTIONAL_MAPS):
            raise UsageError(f'test_cfg: maps must be a list of some of {OPTIONAL_MAPS}, got {self.maps!r}')
