"""Load the images and masks named in a CSV list, with masks of any kind of code."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.registry import DATASETS
from mmseg.datasets import BaseSegDataset
from numpy.typing import NDArray

from mmseg_volo.datasets.check.files import IGNORED, PairResult, count_by_class
from mmseg_volo.datasets.lists import read_classes
from mmseg_volo.datasets.mask_codes import GONE, UNKNOWN, MaskRule, count_codes
from mmseg_volo.errors import BadFileError, UsageError
from mmseg_volo.io.decoding import check_size, decoded_image, shown_size
from mmseg_volo.io.multiband import is_plain, read_bands
from mmseg_volo.io.text_files import read_rows


@DATASETS.register_module()
class FolderDataset(BaseSegDataset):
    """Serve the images and masks of a list.

    Args:
        ann_file: a CSV file with the columns `image` and `mask`, paths below `data_root`; a mask may be left empty.
        data_root: folder of the data.
        classes: a CSV file with the columns `class`, `code` (its code in masks: a value, or `R G B`) and `colour` (to
            draw it: `R G B`, or nothing); codes of rows without a class are ignored.
        masks: kind of the mask files, the `kind` of a `MaskRule`.
        data_prefix: folders below `data_root` that these paths start at; without `seg_map_path` masks are left out.
        nearest: whether other codes count as the nearest of these, see `MaskRule`.
        pipeline, ignore_index, indices, test_mode, lazy_init, serialize_data: as in mmseg's `BaseSegDataset`.
    """

    def __init__(
        self,
        ann_file: str,
        data_root: str,
        classes: str,
        masks: str = 'values',
        data_prefix: Mapping[str, str] | None = None,
        pipeline: Sequence[dict[str, Any] | Callable[..., Any]] = (),
        ignore_index: int = 255,
        indices: int | list[int] | None = None,
        test_mode: bool = False,
        lazy_init: bool = False,
        serialize_data: bool = True,
        nearest: bool = False,
    ):
        names, codes, ignored, palette = read_classes(Path(classes))
        self.rule = MaskRule(masks, codes, ignored, nearest)
        metainfo = dict(classes=names, **({} if palette is None else {'palette': palette}))
        super().__init__(
            ann_file,
            metainfo=metainfo,
            data_root=data_root,
            data_prefix=dict(dict(img_path='', seg_map_path='') if data_prefix is None else data_prefix),
            pipeline=list(pipeline),
            ignore_index=ignore_index,
            indices=indices,
            test_mode=test_mode,
            lazy_init=lazy_init,
            serialize_data=serialize_data,
        )

    def load_data_list(self) -> list[dict[str, Any]]:
        """Read the list into mmseg's items.

        Raises:
            FileNotFoundError, UsageError: there is no such list, or it lacks a column.
        """
        if not Path(self.ann_file).is_file():
            raise FileNotFoundError(f'no list of images at {Path(self.ann_file).absolute()}')
        heading, *cells = read_rows(Path(self.ann_file)) or [['image', 'mask']]
        if not {'image', 'mask'} <= {*heading}:
            raise UsageError(f'{self.ann_file} has the columns {heading}, expected image and mask')
        rows = [dict(zip(heading, row, strict=False)) for row in cells]
        images, masks = (self.data_prefix.get(key) for key in ('img_path', 'seg_map_path'))
        items = []
        for row in rows:
            item: dict[str, Any] = dict(img_path=os.path.join(images, row['image']), seg_fields=[])
            if row.get('mask') and masks is not None:
                item['seg_map_path'] = os.path.join(masks, row['mask'])
            items.append({**item, 'label_map': None, 'reduce_zero_label': False})
        return items

    def get_data_info(self, idx: int) -> dict[str, Any]:
        """Return an item, with `read_label`, the function that reads its mask file."""
        return {**super().get_data_info(idx), 'read_label': self.rule.read}

    @property
    def value_names(self) -> dict[int, str]:
        """Code in a mask -> class, or 'ignored'."""
        names = self.metainfo['classes']
        return {code: names[i] if i < len(names) else IGNORED for code, i in self.rule.index.items()}

    def check_pair(self, image: Path, label: Path | None, names: Mapping[int, str]) -> PairResult:
        """Decode an image and its mask to the end, as `datasets.check.files.check_pair` does, for any kind of file."""
        shape, turned, missing = _decode(image)
        size = f'{shape[0]}x{shape[1]}'
        if label is None:
            return size, {}, False
        codes = self.rule.codes_of(label)
        check_size(label, codes.shape[::-1], shape, turned)
        indices = self.rule.indices_of(codes)
        if (indices == UNKNOWN).any():
            raise BadFileError('values', f'{label} holds {self.rule.some(codes[indices == UNKNOWN])}')
        if missing is not None:
            indices[missing] = self.rule.index[GONE]
        by_index = {self.rule.index[code]: name for code, name in names.items()}
        return size, count_by_class(count_codes(indices), by_index), turned


def image_size(path: Path) -> tuple[tuple[int, int], bool]:
    """Decode an image to the end; return its (width, height) and whether loading turns it.

    Raises:
        BadFileError: it is missing or unreadable.
    """
    size, turned, _ = _decode(path)
    return size, turned


def _decode(path: Path) -> tuple[tuple[int, int], bool, NDArray[np.bool_] | None]:
    """Return (width, height), whether loading turns it, and bool (H, W) where no channel has data, None if nowhere."""
    if not path.is_file() or is_plain(path):
        return *shown_size(decoded_image(path)), None
    pixels, gone = read_bands(path)
    height, width = pixels.shape[:2]
    return (width, height), False, None if gone is None else np.asarray(gone.all(2))
