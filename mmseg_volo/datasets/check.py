"""A look at a data set's files before work starts."""

from __future__ import annotations

from pathlib import Path

from mmengine.config import ConfigDict
from mmengine.registry import DATASETS, DefaultScope
from PIL import Image, UnidentifiedImageError
from tqdm import tqdm

from mmseg_volo.errors import UsageError


def check_files(dataset: ConfigDict, what: str) -> int:
    """Every image and label of a data set is there and begins like a picture; only headers are read.

    Args:
        dataset: config of a mmseg data set.
        what: its role, for messages, e.g. `train_dataloader`.

    Returns:
        How many images there are.

    Raises:
        FileNotFoundError: a folder or a file is missing.
        UsageError: a file is empty or no picture.
    """
    with DefaultScope.overwrite_default_scope('mmseg'):
        found = DATASETS.build({**dataset, 'pipeline': [], 'lazy_init': True})
    folder = Path(found.data_prefix['img_path'])
    root = f'set data_root (now {dataset.get("data_root")!r}), e.g. --cfg-options data_root=PATH, or see data/README.md'
    if not folder.is_dir():
        raise FileNotFoundError(f'{what}: there is no folder {folder.absolute()}; {root}')
    items = found.load_data_list()
    if not items:
        here = sorted(p.name for p in folder.iterdir())[:5]
        raise FileNotFoundError(f'{what}: no *{found.img_suffix} under {folder.absolute()}, which holds {here}; {root}')
    paths = [Path(item[key]) for item in items for key in ('img_path', 'seg_map_path') if key in item]
    for path in tqdm(paths, desc=f'checking files of {what}', unit='file', leave=False, delay=2):
        if not path.is_file():
            raise FileNotFoundError(f'{what}: {path} is missing: every image needs a label of the same name')
        try:
            with Image.open(path):
                pass
        except (UnidentifiedImageError, OSError) as error:
            size = path.stat().st_size
            raise UsageError(f'{what}: {path} ({size} bytes) is not a readable picture: repair or remove it') from error
    return len(items)
