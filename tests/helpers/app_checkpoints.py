"""What the tests of `mmseg-volo demo` share: a checkpoint, an image, and one that is too large."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import cv2
import torch

import mmseg_volo
from mmseg_volo.datasets.synthetic import scenes


def write_checkpoint(path: Path) -> Path:
    """Random weights of the demo's model, which know their classes but not their model."""
    torch.manual_seed(0)
    model = mmseg_volo.load('volo_demo', device='cpu')
    meta = dict(dataset_meta={k: model.dataset_meta[k] for k in ('classes', 'palette')})
    torch.save(dict(meta=meta, state_dict=model.state_dict()), path)
    return path


def write_image(path: Path) -> Path:
    """A scene of 130x75 pixels."""
    cv2.imwrite(str(path), scenes.scene(0, 75, 130)[0][..., ::-1])
    return path


def white_png(side: int) -> bytes:
    """A head that says so; decoding it would fail, or take memory."""
    head = b'IHDR' + struct.pack('>IIBBBBB', side, side, 8, 2, 0, 0, 0)
    return b'\x89PNG\r\n\x1a\n\0\0\0\r' + head + struct.pack('>I', zlib.crc32(head)) + b'\0\0\xff\xffIDAT'
