"""Write pictures of tested images, their labels and predictions."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from mmseg.structures import SegDataSample
from numpy.typing import NDArray

from mmseg_volo.errors import UsageError
from mmseg_volo.io.multiband import to_picture
from mmseg_volo.utils.files import encode_image, write_whole
from mmseg_volo.visualization import colour_mask, overlay, with_legend


@HOOKS.register_module()
class OverlayHook(Hook):
    """Write a picture per tested image: image, truth and prediction side by side, with a legend.

    Args:
        out_dir: folder of the pictures, which keep the images' paths below the data set's folder.
        opacity: of the class colours, 0 to 1.
    """

    def __init__(self, out_dir: str, opacity: float = 0.6):
        self.out_dir = Path(out_dir)
        self.opacity = opacity

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: object, outputs: Sequence[SegDataSample]
    ) -> None:
        dataset = runner.test_dataloader.dataset
        classes, palette = dataset.metainfo['classes'], dataset.metainfo['palette']
        for sample in outputs:
            image = to_picture(sample.img_path)
            mask = sample.pred_sem_seg.data[0].cpu().numpy()
            pictures = [image, overlay(image, mask, palette, self.opacity)]
            if 'gt_sem_seg' in sample:
                pictures.insert(1, colour_mask(sample.gt_sem_seg.data[0].cpu().numpy(), palette))
            picture = with_legend(np.concatenate(pictures, 1), mask, classes, palette)
            path = self.out_dir / os.path.relpath(sample.img_path, dataset.data_prefix['img_path'])
            _write(path.with_suffix('.jpg'), picture)


def _write(path: Path, picture: NDArray[np.uint8]) -> None:
    """Write an RGB picture, or warn if the file format cannot hold it: that must not end a test."""
    try:
        content = encode_image(path.suffix, picture[..., ::-1])
    except UsageError as error:
        MMLogger.get_current_instance().warning(f'{path} is left out: {error}')
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, content)
    except OSError as error:
        raise UsageError(
            f'{path} cannot be written ({error.strerror}): free some space, or name another folder'
        ) from error
