"""`make demo`: draws a data set, trains a small VOLO on it, evaluates it, and writes a page of results."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from string import Template

import cv2
import numpy as np
from torch import nn

from mmseg_volo.apis import load, predict
from mmseg_volo.datasets import scenes
from mmseg_volo.engine.checkpoints import newest
from mmseg_volo_cli import main

CONFIG = 'volo_demo'
NUM_TRAIN, NUM_VAL = 400, 40
HEIGHT, WIDTH = 128, 256  # pixels
NUM_PICTURES = 12  # on the page
SUFFIXES = ('_leftImg8bit.png', '_gtFine_labelTrainIds.png')

PAGE = Template("""<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>mmseg_volo demo</title>
<style>
  :root { color-scheme: light dark }
  body { font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem }
  td, th { padding: .1rem .8rem .1rem 0; text-align: left } td:nth-child(2) { text-align: right }
  .bar { height: .8rem; border-radius: 2px; outline: 1px solid #8886 }
  img { width: 100%; image-rendering: pixelated; border-radius: 4px } code { background: #8882; padding: 0 .3em }
  .grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(28rem, 1fr)); gap: 1rem }
</style>
<h1>$miou mIoU on $num_val held-out scenes</h1>
<p>A VOLO of $params M parameters, trained from random weights on $num_train procedural scenes of ${width}x$height
pixels in $minutes minutes on $device. Classes by intersection over union:</p>
<table>$rows</table>
<h2>Image, truth, prediction</h2>
<div class="grid">$pictures</div>
<h2>Go on from here</h2>
<p><code>tools/predict.py $checkpoint YOUR_IMAGES --out predictions</code><br>
<code>tools/test.py $config $checkpoint --cfg-options data_root=$data</code></p>
</html>
""")


def demo(out: str | Path = 'work_dirs/demo', data: str | Path = 'data/demo') -> float:
    """Runs the whole job and says where the results are.

    Args:
        out: folder for checkpoint, pictures and page; an earlier one is replaced.
        data: folder for the scenes; a set that is there is used again.

    Returns:
        mIoU on the held-out scenes, in per cent.
    """
    out, data = Path(out), Path(data)
    scenes.generate(data, NUM_TRAIN, NUM_VAL, HEIGHT, WIDTH)
    print(f'{NUM_TRAIN} training and {NUM_VAL} validation scenes are in {data}')
    shutil.rmtree(out, ignore_errors=True)
    options = ['--work-dir', str(out), '--cfg-options', f'data_root={data}']
    start = time.monotonic()
    if main(['train', CONFIG, *options]):
        raise SystemExit('the training did not start')
    minutes = (time.monotonic() - start) / 60
    checkpoint = newest(out)[0]
    main(['test', CONFIG, str(checkpoint), '--show-dir', str(out / 'overlays'), *options])
    return write_page(out, data, checkpoint, minutes)


def write_page(out: Path, data: Path, checkpoint: Path, minutes: float) -> float:
    """Scores the checkpoint class by class through the inference API, and writes `OUT/index.html`.

    Returns:
        mIoU in per cent.
    """
    model = load(checkpoint)
    classes, palette = model.dataset_meta['classes'], model.dataset_meta['palette']
    iou = score(model, data, len(classes))
    rows = [
        f'<tr><td>{name}<td>{value:.1f}<td style="width:20rem">'
        f'<div class="bar" style="width:{value:.0f}%;background:rgb{tuple(colour)}"></div>'
        for name, value, colour in zip(classes, iou, palette, strict=True)
    ]
    pictures = sorted((out / 'overlays').rglob('*.jpg'))[:NUM_PICTURES]
    device = next(model.parameters()).device
    page = PAGE.substitute(
        miou=f'{iou.mean():.1f}',
        num_val=NUM_VAL,
        num_train=NUM_TRAIN,
        params=f'{sum(p.numel() for p in model.parameters()) / 1e6:.1f}',
        width=WIDTH,
        height=HEIGHT,
        minutes=f'{minutes:.1f}',
        device='the CPU' if device.type == 'cpu' else 'the GPU',
        rows='\n'.join(rows),
        pictures='\n'.join(f'<img src="{p.relative_to(out).as_posix()}" alt="{p.stem}">' for p in pictures),
        checkpoint=checkpoint,
        config=CONFIG,
        data=data,
    )
    (out / 'index.html').write_text(page, encoding='utf-8')
    print(f'mIoU {iou.mean():.2f} after {minutes:.1f} minutes of training')
    print(f'page of results: {out / "index.html"}, pictures: {out / "overlays"}, checkpoint: {checkpoint}')
    return float(iou.mean())


def score(model: nn.Module, data: Path, num_classes: int) -> np.ndarray:
    """IoU in per cent of each class (num_classes,) over the validation scenes."""
    index = np.full(256, 255, np.uint8)  # train id -> class
    index[list(scenes.TRAIN_IDS)] = np.arange(num_classes)
    confusion = np.zeros((num_classes, num_classes), np.int64)
    for image in sorted((data / 'leftImg8bit/val').rglob('*.png')):
        label = image.parents[3] / 'gtFine/val' / image.parent.name / image.name.replace(*SUFFIXES)
        truth = index[cv2.imread(str(label), cv2.IMREAD_UNCHANGED)]
        mask = predict(model, image).mask
        seen = truth != 255
        pairs = truth[seen].astype(np.int64) * num_classes + mask[seen]
        confusion += np.bincount(pairs, minlength=num_classes**2).reshape(confusion.shape)
    hit = confusion.diagonal()
    return 100 * hit / np.maximum(confusion.sum(0) + confusion.sum(1) - hit, 1)
