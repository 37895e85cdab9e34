"""Predicting one image on the CPU against mmseg: `python benchmarks/cpu_prediction.py`.

mmseg's `inference_model` on its own EncoderDecoder and UPerHead, with our VOLO-D1 as the backbone, against
`mmseg_volo.predict` with the same random weights, as `load` prepares it on a CPU, with `optimize=False`, and with
`bf16=True`.
"""

from __future__ import annotations

import copy

import numpy as np
import torch
from measure import arguments, medians, report
from mmengine.config import Config
from mmseg.apis import inference_model, init_model

from mmseg_volo import load, predict
from mmseg_volo.config import load_config
from mmseg_volo.datasets.synthetic.scenes import scene
from mmseg_volo.models.cpu import optimize_for_cpu, use_bf16

SIZE = (512, 512)
SAME = 0.999


def mmsegs(cfg: Config) -> Config:
    """The same network in mmseg's own segmentor and head."""
    theirs = copy.deepcopy(cfg)
    theirs.model.type, theirs.model.decode_head.type = 'EncoderDecoder', 'UPerHead'
    theirs.model.backbone.init_cfg = None
    theirs.default_scope = 'mmseg'
    return theirs


def main() -> None:
    args = arguments(__doc__.splitlines()[0])
    torch.manual_seed(0)
    cfg = load_config('volo_d1_ade20k')
    models = {'mmseg': init_model(mmsegs(cfg), device='cpu')}
    for name in ('plain', 'ours', 'bf16'):
        models[name] = load(cfg, device='cpu', optimize=False)
        models[name].load_state_dict(models['mmseg'].state_dict())
        if name != 'plain':
            optimize_for_cpu(models[name])
    use_bf16(models['bf16'])
    image = scene(0, *SIZE)[0]
    bgr = np.ascontiguousarray(image[..., ::-1])
    masks: dict[str, np.ndarray] = {}

    def theirs(run: int) -> None:
        masks['mmseg'] = inference_model(models['mmseg'], bgr).pred_sem_seg.data[0].numpy()

    def ours(name: str) -> None:
        masks[name] = predict(models[name], image).mask

    sides = {'mmseg': theirs, 'plain': lambda run: ours('plain'), 'ours': lambda run: ours('ours')}
    sides['bf16'] = lambda run: ours('bf16')
    seconds = medians(sides, args.runs)
    rows = []
    for name, value in seconds.items():
        same = (masks[name] == masks['mmseg']).mean().item()
        rows.append({'side': name, 's': value, 'times faster': seconds['mmseg'] / value, 'same pixels': same})
    report(f'VOLO-D1 + UPerNet, {SIZE[0]}x{SIZE[1]}, 150 classes', rows, args)
    if any(row['same pixels'] < SAME for row in rows if row['side'] != 'bf16'):  # it rounds, and weights are random
        raise SystemExit('the masks differ')


if __name__ == '__main__':
    main()
