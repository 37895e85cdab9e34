"""Train a segmentor on a folder of images and masks, and predict masks for a folder of images.

python examples/folder_to_predictions.py             # draws a data set; results in work_dirs/folder
python examples/folder_to_predictions.py FOLDER      # yours: its layout and classes as in examples/own_data.py
"""

from __future__ import annotations

import argparse
from pathlib import Path

import shapes

import mmseg_volo
from mmseg_volo.inference import predict_files
from mmseg_volo_cli import main

CONFIG = Path(__file__).with_name('own_data.py')


def train(config: Path, data: Path, out: Path, iters: int) -> Path:
    """Run `mmseg-volo train CONFIG --work-dir OUT --cfg-options data_root=DATA` for `iters` iterations.

    Returns:
        The checkpoint.
    """
    whole = ('train_cfg.max_iters', 'train_cfg.val_interval', 'default_hooks.checkpoint.interval')
    length = [f'{name}={iters}' for name in (*whole, 'param_scheduler.1.end')]
    length += [f'{name}={max(1, iters // 10)}' for name in ('param_scheduler.0.end', 'param_scheduler.1.begin')]
    if main(['train', str(config), '--work-dir', str(out), '--cfg-options', f'data_root={data}', *length]):
        raise SystemExit(2)  # the reason has been printed
    return out / f'iter_{iters}.pth'


def run(data: Path | None, out: Path, iters: int) -> list[Path]:
    """Train, evaluate and predict.

    Returns:
        The files of the predicted masks of the validation images.
    """
    data = data or shapes.write(out / 'data')
    checkpoint = train(CONFIG, data, out, iters)  # checks all images and masks first

    # from here on only the checkpoint is needed: it holds its model, classes and colours
    model = mmseg_volo.load(checkpoint)
    image = min((data / 'images/val').iterdir())
    prediction = mmseg_volo.predict(model, image)
    print(image.name, {name: f'{(prediction.mask == i).mean():.0%}' for i, name in enumerate(prediction.classes)})
    return predict_files(model, [str(data / 'images/val')], out / 'predictions')


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('data', nargs='?', type=Path)
    parser.add_argument('--out', type=Path, default=Path('work_dirs/folder'))
    parser.add_argument('--iters', type=int, default=100)
    run(**vars(parser.parse_args()))
