"""Train the backbone of examples/new_backbone.py from a plain config, and predict with it.

    python examples/train_new_backbone.py     # results in work_dirs/new_backbone

The config's `custom_imports` names the module; with it in PYTHONPATH, all commands take the config:
`PYTHONPATH=examples mmseg-volo predict CONFIG CHECKPOINT IMAGES --out DIR`. A checkpoint alone brings no code.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import new_backbone
import shapes
from folder_to_predictions import CONFIG, train

import mmseg_volo
from mmseg_volo.config import load_config


def run(out: Path, iters: int) -> mmseg_volo.Prediction:
    """Write the config beside the results, train it and predict an image."""
    data = shapes.write(out / 'data')
    cfg = load_config(CONFIG)
    cfg.custom_imports.imports.append(new_backbone.__name__)
    cfg.model.backbone = dict(type='TinyConv', dims=cfg.dims)
    cfg.dump(out / 'new_backbone_config.py')
    checkpoint = train(out / 'new_backbone_config.py', data, out, iters)
    return mmseg_volo.predict(mmseg_volo.load(out / 'new_backbone_config.py', checkpoint), data / 'images/val/0000.jpg')


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--out', type=Path, default=Path('work_dirs/new_backbone'))
    parser.add_argument('--iters', type=int, default=60)
    print(run(**vars(parser.parse_args())).mask.shape)
