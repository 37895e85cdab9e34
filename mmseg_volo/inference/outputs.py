"""Write the outputs of an image, or of a frame of a video."""

from __future__ import annotations

import io
from collections.abc import Collection
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

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
LARGEST = 65500  # side in pixels of a JPEG file


def write_image(
    out: Path, stem: Path, image: NDArray[np.uint8], prediction: Prediction, options: Options, kinds: Collection[str]
) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Write `OUT/KIND/STEM.SUFFIX` for each kind of output, each completely or not at all.

    A kind whose file format cannot hold so many pixels is left out; the others are written.

    Args:
        image: (H, W, 3), uint8 RGB.
        prediction: of the image, with the maps that the kinds need.

    Returns:
        The paths below OUT by kind, and for each kind that was left out the reason.

    Raises:
        OSError: a file cannot be written.
    """
    written: dict[str, list[str]] = {}
    left_out: dict[str, str] = {}
    for kind in kinds:
        name = Path(kind) / stem.parent / f'{stem.name}{SUFFIXES[kind]}'
        path = out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            content = _content(kind, image, prediction, options)
        except UsageError as error:
            left_out[kind] = f'{path} is left out: {error}'
        else:
            write_whole(path, content)
            written[kind] = [str(name)]
    return written, left_out


def _content(kind: str, image: NDArray[np.uint8], prediction: Prediction, options: Options) -> bytes:
    """Return the bytes of one output file."""
    mask, palette = prediction.mask, prediction.palette
    if kind == 'polygons':
        return b''.join(geojson(mask, prediction.classes, Ground()))
    if kind == 'probabilities':
        assert prediction.probability is not None
        file = io.BytesIO()
        np.save(file, prediction.probability.astype(np.float16))
        return file.getvalue()
    if kind == 'masks':
        pixels = mask
    elif kind == 'confidence':
        pixels = confidence_levels(prediction)
    else:
        height, width = mask.shape
        if kind == 'overlays' and max(height, width) > LARGEST:  # before it is drawn
            raise UsageError(f'a .jpg file cannot hold {width}x{height} pixels, at most {LARGEST} a side')
        pixels = colour_mask(mask, palette)
        if kind == 'overlays':
            pixels = overlay(image, mask, palette, options.opacity)
            pixels = with_legend(pixels, mask, prediction.classes, palette)
        pixels = pixels[..., ::-1]  # BGR, as OpenCV expects
    return encode_image(SUFFIXES[kind], pixels)


def confidence_levels(prediction: Prediction) -> NDArray[np.uint8]:
    """Return the confidence (H, W) as 0 to 255."""
    assert prediction.confidence is not None
    return np.rint(prediction.confidence * 255).astype(np.uint8)
