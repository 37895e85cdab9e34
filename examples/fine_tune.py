"""Goes on from a checkpoint with other classes: its network with its backbone's weights, and a new head.

python examples/fine_tune.py work_dirs/folder/iter_100.pth               # on new shapes; results in work_dirs/tuned
python examples/fine_tune.py CHECKPOINT FOLDER --classes sky ground      # yours, laid out as in own_data.py
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import shapes
from folder_to_predictions import CONFIG, train

import mmseg_volo
from mmseg_volo.config import load_config

CLASSES = ['background', 'triangle', 'square', 'disc']


def run(checkpoint: Path, data: Path | None, classes: Sequence[str], out: Path, iters: int) -> Path:
    """Writes a plain config beside the results, and trains it.

    Returns:
        The new checkpoint.
    """
    data = data or shapes.write(out / 'data', CLASSES[1:])
    cfg = load_config(CONFIG)
    cfg.model = mmseg_volo.load(checkpoint, device='cpu').cfg.model
    cfg.model.backbone.init_cfg = dict(type='Pretrained', checkpoint=str(checkpoint.absolute()), prefix='backbone.')
    for head in filter(None, (cfg.model.decode_head, cfg.model.get('auxiliary_head'))):
        head.num_classes = len(classes)
    palette = [[(53 * i) % 256, (97 * i) % 256, (193 * i) % 256] for i in range(len(classes))]
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.dataset.metainfo = dict(classes=tuple(classes), palette=palette)
    out.mkdir(parents=True, exist_ok=True)
    cfg.dump(out / 'tuned.py')
    return train(out / 'tuned.py', data, out, iters)


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('checkpoint', type=Path)
    parser.add_argument('data', nargs='?', type=Path)
    parser.add_argument('--classes', nargs='+', default=CLASSES)
    parser.add_argument('--out', type=Path, default=Path('work_dirs/tuned'))
    parser.add_argument('--iters', type=int, default=60)
    print(run(**vars(parser.parse_args())))
