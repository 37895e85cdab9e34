"""A checkpoint with random weights, and what it predicts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config

import mmseg_volo
from mmseg_volo.io.checkpoint import RECORD


def save(cfg: Config, folder: Path, image: Path) -> tuple[Path, Path]:
    """A checkpoint of a config's model with random weights, and the mask that it gives for an image."""
    torch.manual_seed(0)
    model = mmseg_volo.load(cfg, device='cpu', optimize=False)
    torch.nn.init.normal_(model.decode_head.conv_seg.weight)
    record = Config(dict(model=cfg.model, test_pipeline=cfg.test_pipeline)).to_dict()
    shown = {name: model.dataset_meta[name] for name in ('classes', 'palette')}
    weights, mask = folder / 'model.pth', folder / 'mask.npy'
    torch.save(dict(meta={RECORD: record, 'dataset_meta': shown}, state_dict=model.state_dict()), weights)
    np.save(mask, mmseg_volo.predict(model, image).mask)
    return weights, mask
