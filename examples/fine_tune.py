"""Fine-tune a checkpoint on other classes: its network with its backbone's weights, and a new head.

python examples/fine_tune.py work_dirs/folder/iter_100.pth               # on new shapes; results in work_dirs/tuned
python examples/fine_tune.py CHECKPOINT FOLDER --classes sky ground      # yours, laid out as in own_data.py
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import shapes
from folder_to_predictions import CONFIG, train

import mmseg_volo
from mmseg_volo.config import load_config
from mmseg_volo.errors import UsageError, print_error

CLASSES = ['background', 'triangle', 'square', 'disc']
OF_OLD_CLASSES = ('out_channels', 'ignore_index', 'threshold')  # settings of a head that depend on its classes


def run(checkpoint: Path, data: Path | None, classes: Sequence[str], out: Path, iters: int) -> Path:
    """Write a plain config beside the results, and train it.

    Returns:
        The new checkpoint.

    Raises:
        UsageError: the checkpoint was trained on images other than 8-bit RGB, which this config does not load.
    """
    old = mmseg_volo.load(checkpoint, device='cpu').cfg
    if any(step.type == 'LoadMultiBandImage' for step in old.get('test_pipeline') or []):
        raise UsageError(
            f'{checkpoint} was trained on images other than 8-bit RGB: fine-tune it with mmseg-volo train --data '
            f'FOLDER --model NAME --weights {checkpoint}'
        )
    data = data or shapes.write(out / 'data', CLASSES[1:])
    cfg = load_config(CONFIG)
    cfg.model = {**old.model, 'test_cfg': cfg.model.test_cfg}  # windows and sizes are those of the new images
    cfg.model.backbone.init_cfg = dict(type='Pretrained', checkpoint=str(checkpoint.absolute()), prefix='backbone.')
    cfg.model.data_preprocessor.update(size=cfg.crop_size, seg_pad_val=255)
    for name in ('decode_head', 'auxiliary_head'):
        heads = cfg.model.get(name) or []
        for head in heads if isinstance(heads, list) else [heads]:
            renew(head, len(classes))
    palette = [[(53 * i) % 256, (97 * i) % 256, (193 * i) % 256] for i in range(len(classes))]
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.dataset.metainfo = dict(classes=tuple(classes), palette=palette)
    out.mkdir(parents=True, exist_ok=True)
    cfg.dump(out / 'tuned.py')
    return train(out / 'tuned.py', data, out, iters)


def renew(head: dict[str, Any], classes: int) -> None:
    """Reset the settings in a head's config that depend on its old classes."""
    for key in OF_OLD_CLASSES:
        head.pop(key, None)
    head.update(num_classes=classes)
    if classes == 2:  # without it mmseg warns, suggesting a single output
        head.update(out_channels=2)
    losses = head.get('loss_decode')
    for loss in losses if isinstance(losses, list) else filter(None, [losses]):
        loss.pop('class_weight', None)
        if loss['type'] in ('CrossEntropyLoss', 'WeightedCrossEntropy'):
            loss.pop('use_sigmoid', None)
            loss['type'] = 'CrossEntropyLoss'


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('checkpoint', type=Path)
    parser.add_argument('data', nargs='?', type=Path)
    parser.add_argument('--classes', nargs='+', default=CLASSES)
    parser.add_argument('--out', type=Path, default=Path('work_dirs/tuned'))
    parser.add_argument('--iters', type=int, default=60)
    try:
        print(run(**vars(parser.parse_args())))
    except (FileNotFoundError, UsageError) as error:
        print_error(error)
        sys.exit(2)
