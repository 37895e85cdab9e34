"""Images of every kind that may be given, and the pixels that they are."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

RGB = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
GREY = RGB[..., 0]
GREY3 = np.stack([GREY] * 3, -1)
RGBA = np.concatenate([RGB, GREY[..., None]], -1)
WIDE = RGB.astype(np.uint16) * 256 + 77
GIVEN = {
    'array, RGB': (RGB, RGB),
    'array, not contiguous': (RGB[:, ::-1], RGB[:, ::-1]),
    'array, RGBA': (RGBA, RGB),
    'array, (H, W)': (GREY, GREY3),
    'array, (H, W, 1)': (GREY[..., None], GREY3),
    'array, uint16': (WIDE, RGB),
    'array, int64': (RGB.astype(np.int64), RGB),
    'array, float32': (RGB.astype(np.float32) / 255, RGB),
    'array, float16': (RGB.astype(np.float16) / 255, RGB),
    'array, bool': (RGB > 127, (RGB > 127) * np.uint8(255)),
    'tensor, RGB': (torch.from_numpy(RGB).permute(2, 0, 1), RGB),
    'tensor, RGBA': (torch.from_numpy(RGBA).permute(2, 0, 1), RGB),
    'tensor, (H, W)': (torch.from_numpy(GREY), GREY3),
    'tensor, float64 with gradients': ((torch.from_numpy(RGB).double() / 255).permute(2, 0, 1).requires_grad_(), RGB),
    'tensor, bfloat16': (
        torch.from_numpy((RGB > 127).astype(np.float32)).bfloat16().permute(2, 0, 1),
        (RGB > 127) * 255,
    ),
    'PIL, RGB': (Image.fromarray(RGB), RGB),
    'PIL, RGBA': (Image.fromarray(RGBA), RGB),
    'PIL, L': (Image.fromarray(GREY), GREY3),
    'PIL, 1': (Image.fromarray(GREY > 127), (GREY3 > 127) * 255),
    'PIL, I;16': (Image.fromarray(WIDE[..., 0]), GREY3),
    'PIL, I': (Image.fromarray(WIDE[..., 0].astype(np.int32)), GREY3),
    'PIL, F': (Image.fromarray(GREY.astype(np.float32) / 255), GREY3),
}
