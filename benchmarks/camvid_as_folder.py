"""Write CamVid as a user's own folder: `{train,val}/images/*.jpg` beside `{train,val}/masks/*.png` in RGB colours.

    python benchmarks/camvid_as_folder.py PATH_TO_CAMVID OUT
    mmseg-volo train --data OUT --model volo_camvid

`val` are the 233 test frames, as the shipped config `volo_camvid` validates on them; void is black, and `classes.txt`
names it. The second command trains as that config does, with classes and codes found automatically.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from mmseg_volo.datasets.camvid import CamVidDataset

CLASSES, PALETTE = CamVidDataset.METAINFO['classes'], [*CamVidDataset.METAINFO['palette'], [0, 0, 0]]


def lay(source: Path, target: Path, count: int | None = None) -> Path:
    """Write the folder.

    Args:
        source: CamVid in the layout of `data/README.md`.
        target: the folder to write.
        count: frames of each split; all if None.
    """
    for split, name in (('train', 'train'), ('test', 'val')):
        for kind in ('images', 'masks'):
            (target / name / kind).mkdir(parents=True, exist_ok=True)
        frames = sorted((source / 'images' / split).glob('*.jpg'))
        for frame in frames[:: max(1, len(frames) // count) if count else 1][:count]:
            shutil.copy(frame, target / name / 'images')
            label = np.asarray(Image.open(source / 'labels' / split / f'{frame.stem}.png'))
            colours = Image.fromarray(np.array(PALETTE, np.uint8)[label])
            colours.save(target / name / 'masks' / f'{frame.stem}.png')
    lines = [' '.join(map(str, (*colour, name))) for colour, name in zip(PALETTE, (*CLASSES, 'Void'), strict=True)]
    (target / 'classes.txt').write_text('\n'.join(lines) + '\n')
    return target


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('camvid', type=Path)
    parser.add_argument('out', type=Path)
    args = parser.parse_args(argv)
    print(lay(args.camvid, args.out))
    return 0


if __name__ == '__main__':
    sys.exit(main())
