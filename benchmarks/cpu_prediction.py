"""Predict one image on the CPU, against mmseg: `python benchmarks/cpu_prediction.py`.

mmseg's `inference_model` on its EncoderDecoder and UPerHead with our backbone, against `mmseg_volo.predict` with the
same weights: with `optimize=False`, channels-last only, with Winograd convolutions too (what `load` does on a CPU), and
with `bf16=True` too. 'CPU s' is the processor time of all threads: other work on the machine changes it less.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

import numpy as np
import torch
from measure import arguments, medians, report
from mmengine.config import Config
from mmseg.apis import inference_model, init_model
from torch import nn

from mmseg_volo import load, predict
from mmseg_volo.config import load_config
from mmseg_volo.datasets.synthetic.scenes import scene
from mmseg_volo.models.cpu import optimize_for_cpu, use_bf16

CONFIGS = {'VOLO-D1': 'volo_d1_ade20k', 'CAFormer-S18': 'caformer_s18_ade20k'}
SIZE = (512, 512)
SAME = 0.999


def mmsegs(cfg: Config) -> Config:
    """Return the config of the same network in mmseg's own segmentor and head."""
    theirs = copy.deepcopy(cfg)
    theirs.model.type, theirs.model.decode_head.type = 'EncoderDecoder', 'UPerHead'
    theirs.model.backbone.init_cfg = None
    theirs.default_scope = 'mmseg'
    return theirs


def bf16(model: nn.Module) -> None:
    """Prepare a model as `load(..., bf16=True)` does."""
    optimize_for_cpu(model)
    use_bf16(model)


PREPARE: dict[str, Callable[[nn.Module], Any]] = {
    'optimize=False': lambda model: None,
    'channels-last': lambda model: model.to(memory_format=torch.channels_last),
    '+ Winograd, as load': optimize_for_cpu,
    '+ bf16': bf16,
}


def compare(name: str, runs: int) -> list[dict[str, Any]]:
    """Time all sides of one model in turns, and compare their masks."""
    cfg = load_config(CONFIGS[name])
    models = {'mmseg': init_model(mmsegs(cfg), device='cpu')}
    for side, prepare in PREPARE.items():
        models[side] = load(cfg, device='cpu', optimize=False)
        models[side].load_state_dict(models['mmseg'].state_dict())
        prepare(models[side])
    image = scene(0, *SIZE)[0]
    bgr = np.ascontiguousarray(image[..., ::-1])
    masks: dict[str, np.ndarray] = {}
    cpu_seconds: dict[str, list[float]] = {side: [] for side in models}

    def work(side: str, run: int) -> None:
        start = time.process_time()
        if side == 'mmseg':
            masks[side] = inference_model(models[side], bgr).pred_sem_seg.data[0].numpy()
        else:
            masks[side] = predict(models[side], image).mask
        if run:
            cpu_seconds[side].append(time.process_time() - start)

    seconds = medians({side: partial(work, side) for side in models}, runs)
    cpu = {side: median(values) for side, values in cpu_seconds.items()}
    rows = []
    for side, value in seconds.items():
        row = {'model': name, 'side': side, 's': value, 'CPU s': cpu[side]}
        row |= {f'times faster than {other}': seconds[other] / value for other in ('mmseg', 'optimize=False')}
        row['CPU, than channels-last'] = cpu['channels-last'] / cpu[side]
        rows.append(row | {'same pixels': (masks[side] == masks['mmseg']).mean().item()})
    return rows


def main() -> None:
    options = {'--only': dict(nargs='+', choices=CONFIGS, default=[*CONFIGS], metavar='MODEL')}
    args = arguments(__doc__.splitlines()[0], options)
    torch.manual_seed(0)
    rows = [row for name in args.only for row in compare(name, args.runs)]
    report(f'UPerNet, {SIZE[0]}x{SIZE[1]}, 150 classes', rows, args)
    if any(row['same pixels'] < SAME for row in rows if 'bf16' not in row['side']):  # it rounds, and weights are random
        raise SystemExit('the masks differ')


if __name__ == '__main__':
    main()
