"""What is written of an image, or of a frame of a video."""

from __future__ import annotations

import io
from collections.abc import Collection
from pathlib import Path

import numpy as np

from mmseg_volo.errors import UsageError
from mmseg_volo.inference.api import Prediction
from mmseg_volo.inference.georeference import Ground
from mmseg_volo.inference.options import Options
from mmseg_volo.inference.polygons import geojson
from mmseg_volo.utils.files import encode_image, write_whole
from mmseg_volo.visualization import colour_mask, overlay, with_legend

SUFFIXES = {
    'masks': '.png',
    'colours': '.png',
    'overlays': '.jpg',
    'confidence': '.png',
    'probabilities': '.npy',
    'polygons': '.geojson',
}
LARGEST = 65500  # pixels a side of a JPEG file


def write_image(
    out: Path, stem: Path, image: np.ndarray, found: Prediction, options: Options, kinds: Collection[str]
) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Writes `OUT/KIND/STEM.SUFFIX` for each kind of output, each wholly or not at all.

    A kind whose files cannot hold so many pixels is left out, the others are written.

    Args:
        image: (H, W, 3), uint8 RGB.
        found: for it, with the maps that the kinds need.

    Returns:
        The files' paths below OUT, by kind, and of each kind that was left out a sentence that says why.

    Raises:
        OSError: one cannot be written.
    """
    written, left_out = {}, {}
    for kind in kinds:
        name = Path(kind) / stem.parent / f'{stem.name}{SUFFIXES[kind]}'
        place = out / name
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            content = _content(kind, image, found, options)
        except UsageError as error:
            left_out[kind] = f'{place} is left out: {error}'
        else:
            write_whole(place, content)
            written[kind] = [str(name)]
    return written, left_out


def _content(kind: str, image: np.ndarray, found: Prediction, options: Options) -> bytes:
    if kind == 'polygons':
        return b''.join(geojson(found.mask, found.classes, Ground()))
    if kind == 'probabilities':
        file = io.BytesIO()
        np.save(file, found.probability.astype(np.float16))
        return file.getvalue()
    if kind == 'masks':
        pixels = found.mask
    elif kind == 'confidence':
        pixels = np.rint(found.confidence * 255).astype(np.uint8)
    else:
        height, width = found.mask.shape
        if kind == 'overlays' and max(height, width) > LARGEST:  # before it is drawn
            raise UsageError(f'a .jpg file cannot hold {width}x{height} pixels, at most {LARGEST} a side')
        pixels = colour_mask(found.mask, found.palette)
        if kind == 'overlays':
            pixels = overlay(image, found.mask, found.palette, options.opacity)
            pixels = with_legend(pixels, found.mask, found.classes, found.palette)
        pixels = pixels[..., ::-1]  # as OpenCV has it
    return encode_image(SUFFIXES[kind], pixels)
