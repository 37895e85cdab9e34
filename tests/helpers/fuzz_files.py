"""Reads damaged files of all kinds within bounded memory and time; `test_hostile_fuzz.py` runs this file by itself."""

from __future__ import annotations

import io
import os
import random
import resource
import sys
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from mmseg_volo.app.view import Limits, open_upload
from mmseg_volo.datasets.mask_codes import read_raw
from mmseg_volo.errors import UsageError
from mmseg_volo.io.image import read_image, read_label
from mmseg_volo.io.multiband import read_bands, to_picture

MEMORY = 2 << 30  # bytes beyond what the libraries themselves take


def corpus() -> dict[str, bytes]:
    """Suffix -> content."""
    rng = np.random.default_rng(0)
    rgb = cv2.resize(rng.integers(0, 256, (6, 8, 3), np.uint8), (48, 36))
    files = {}
    for suffix, kind in (('.png', 'PNG'), ('.jpg', 'JPEG'), ('.webp', 'WEBP'), ('.bmp', 'BMP'), ('.gif', 'GIF')):
        Image.fromarray(rgb).save(file := io.BytesIO(), kind)
        files[suffix] = file.getvalue()
    for suffix in ('.jp2', '.tif'):
        files[suffix] = cv2.imencode(suffix, rgb)[1].tobytes()
    np.save(file := io.BytesIO(), rgb)
    Image.fromarray(rgb).convert('P').save(plain := io.BytesIO(), 'TIFF')
    return {**files, '.npy': file.getvalue(), '.tiff': plain.getvalue()}


def damaged(content: bytes, dice: random.Random) -> bytes:
    """Some bytes are others, most of them near the beginning; or a part is gone, or there twice."""
    changed = bytearray(content)
    for _ in range(dice.choice((1, 1, 2, 4, 8))):
        end = len(changed) if dice.random() < 0.4 else min(len(changed), 200)
        changed[dice.randrange(end)] = dice.choice((0, 1, 127, 128, 255, dice.randrange(256)))
    if dice.random() < 0.2:
        first, last = sorted(dice.randrange(len(changed)) for _ in range(2))
        changed[first:last] = changed[first:last] * dice.choice((0, 2))
    return bytes(changed)


def main(folder: Path, cases: int, seed: int) -> None:
    """Prints how often what came out."""
    pages = int(Path('/proc/self/statm').read_text().split()[0])
    limit = pages * os.sysconf('SC_PAGE_SIZE') + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    upload = lambda path: open_upload(path, Limits())  # noqa: E731
    dice, outcomes = random.Random(seed), Counter()
    for suffix, content in corpus().items():
        path = folder / f'a{suffix}'
        for _ in range(cases):
            path.write_bytes(damaged(content, dice))
            for read in (read_image, read_label, read_raw, read_bands, to_picture, upload):
                try:
                    read(path)
                    outcomes[suffix, 'read'] += 1
                except UsageError as error:
                    assert len(str(error).splitlines()) == 1
                    outcomes[suffix, 'refused'] += 1
                except MemoryError:  # which those who call it for many files tell of this one
                    outcomes[suffix, 'no memory'] += 1
    print(dict(outcomes), f'{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10} MiB')


if __name__ == '__main__':
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
