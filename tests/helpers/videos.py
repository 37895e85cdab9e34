"""A short film."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from mmseg_volo.datasets.synthetic import scenes

av = pytest.importorskip('av')


def film(path: Path, size: tuple[int, int], rate: Fraction, frames: int, steps: tuple[int, ...] = (1,)) -> Path:
    """A video whose frames are 1, or in turns as many as `steps` says, intervals of the rate apart."""
    wide = scenes.scene(5, size[0], size[1] + 4 * frames)[0]
    with av.open(str(path), 'w') as file:
        stream = file.add_stream('ffv1', rate=rate)
        stream.width, stream.height, stream.pix_fmt = size[1], size[0], 'bgr0'
        when = 0
        for i in range(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(wide[:, 4 * i :][:, : size[1]]), format='rgb24')
            frame.pts, frame.time_base = when, 1 / rate
            when += steps[i % len(steps)]
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return path
