"""Run `make demo`: draw a data set, train a small VOLO on it, evaluate it, and write a page of results."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path

from mmseg_volo.datasets.synthetic import scenes
from mmseg_volo.engine.checkpoint import newest_checkpoint
from mmseg_volo.engine.work_dir import RESULTS_PAGE, emptied_work_dir
from mmseg_volo_cli import main

CONFIG = 'volo_demo'
NUM_TRAIN, NUM_VAL = 400, 40
HEIGHT, WIDTH = 128, 256  # pixels


def demo(out: str | Path = 'work_dirs/demo', data: str | Path = 'data/demo') -> float:
    """Run the whole demo and print where the results are.

    Args:
        out: folder for checkpoint, pictures and page; results of an earlier run are replaced.
        data: folder for the scenes; existing scenes are reused.

    Returns:
        mIoU on the validation scenes, in per cent.

    Raises:
        UsageError: another process uses `out`, or it holds something other than an earlier run.
    """
    out, data = Path(out), Path(data)
    scenes.generate(data, NUM_TRAIN, NUM_VAL, HEIGHT, WIDTH)
    print(f'{NUM_TRAIN} training and {NUM_VAL} validation scenes are in {data}')
    with emptied_work_dir(out, f'{CONFIG}.py'):
        return _run(out, ['--work-dir', str(out), '--cfg-options', f'data_root={data}'])


def _run(out: Path, options: Sequence[str]) -> float:
    start = time.monotonic()
    if main(['train', CONFIG, *options]):
        raise SystemExit('the training did not start')
    minutes = (time.monotonic() - start) / 60
    checkpoint = newest_checkpoint(out)[0]
    main(['test', CONFIG, str(checkpoint), '--show-dir', str(out / 'overlays'), *options])
    (record,) = out.glob('*/test.json')
    miou: float = json.loads(record.read_text())['metrics']['mIoU']
    print(f'mIoU {miou:.2f} after {minutes:.1f} minutes of training')
    print(f'page of results: {out / RESULTS_PAGE}, pictures: {out / "overlays"}, checkpoint: {checkpoint}')
    return miou
