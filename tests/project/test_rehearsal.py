"""A dress rehearsal of experiments: shrunken, on small data, but through the tools as a user calls them.

One of each backbone, data set and head; the others differ in their variant and its weights only, which shrinking takes
away. `make rehearse` runs all of them, in about seven minutes.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import cv2
import pytest
from helpers.paths import SHARED
from helpers.tiny_backbones import TINY
from helpers.tools import printed
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from mmseg_volo.config import load_config, shipped_configs
from mmseg_volo.datasets.synthetic import scenes
from mmseg_volo_cli import main

SHRINK = {'cityscapes': 8, 'ade20k': 8, 'camvid': 2, 'demo': 1}  # of crops, windows and image sizes


def chosen() -> list[str]:
    names = shipped_configs()
    if os.environ.get('REHEARSE') == 'all':
        return names
    smallest_last = [*reversed(names), *(name for name in names if '_s18_' in name)]
    kinds = {re.sub(r'_(d\d|[smb]\d\d|(t_)?\d\d|(rmlp_)?\d_rw)(?=_)|_160k$', '', name): name for name in smallest_last}
    return sorted(kinds.values())


@pytest.fixture(scope='module')
def roots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder in the layout of each data set."""
    streets = scenes.generate(tmp_path_factory.mktemp('streets') / 'scenes', 3, 2, 128, 256)
    ade = tmp_path_factory.mktemp('ade')
    for split, ours in (('training', 'train'), ('validation', 'val')):
        for folder in ('images', 'annotations'):
            (ade / folder / split).mkdir(parents=True)
        for path in sorted((streets / 'leftImg8bit' / ours).rglob('*.png')):
            label = str(path).replace('leftImg8bit', 'gtFine').replace('_gtFine.', '_gtFine_labelTrainIds.')
            cv2.imwrite(str(ade / 'images' / split / f'{path.stem}.jpg'), cv2.imread(str(path)))
            mask = cv2.imread(label, cv2.IMREAD_UNCHANGED)
            mask[mask == 255] = 149
            cv2.imwrite(str(ade / 'annotations' / split / f'{path.stem}.png'), mask + 1)  # 0 is 'other' there
    return {'cityscapes': streets, 'demo': streets, 'ade20k': ade, 'camvid': SHARED / 'camvid'}


def scaled(value: Any, by: int) -> Any:
    """A config whose sizes in pixels are divided."""
    if isinstance(value, dict):
        pixels = ('scale', 'crop_size', 'stride', 'size')
        return {k: tuple(s // by for s in v) if k in pixels else scaled(v, by) for k, v in value.items()}
    return [scaled(v, by) for v in value] if isinstance(value, (list, tuple)) else value


def shrink(name: str, data: str, root: Path) -> Config:
    cfg = load_config(name, {'data_root': str(root)})
    for key in ('train_dataloader', 'val_dataloader', 'test_dataloader', 'tta_pipeline', 'test_pipeline'):
        cfg[key] = scaled(cfg[key], SHRINK[data])
        if 'dataset' in cfg[key]:
            cfg[key].update(num_workers=0, persistent_workers=False)
            cfg[key].dataset.indices = [0, 1]
    model = cfg.model
    model.backbone.update(TINY[model.backbone.type], init_cfg=None, pretrain_img_size=64)
    with DefaultScope.overwrite_default_scope('mmseg'):
        dims = list(MODELS.build(model.backbone).out_channels)
    if 'neck' in model:
        model.neck.in_channels = dims
    model.decode_head.update(in_channels=dims, channels=16)
    if 'auxiliary_head' in model:
        model.auxiliary_head.update(in_channels=dims[2], channels=16)
    model.data_preprocessor = scaled(model.data_preprocessor, SHRINK[data])
    model.test_cfg = scaled(model.test_cfg, SHRINK[data])
    cfg.train_dataloader.batch_size = 2
    cfg.train_cfg.update(max_iters=2, val_interval=2)
    cfg.default_hooks.checkpoint.update(interval=2)
    cfg.default_hooks.logger.interval = 1
    return cfg


@pytest.mark.parametrize('name', chosen())
def test_trains_validates_saves_resumes_and_is_tested(
    name: str, roots: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (data,) = [d for d in SHRINK if d in name]
    if not roots[data].is_dir():
        pytest.skip(f'{data} is not at {roots[data]}')
    path, work = tmp_path / f'{name}.py', ['--work-dir', str(tmp_path / 'work')]
    shrink(name, data, roots[data]).dump(path)
    assert main(['train', str(path), *work]) == 0
    said = printed(capsys)
    assert re.search(r'Iter\(train\) *\[2/2\]', said) and re.search(r'Iter\(val\) .*mIoU: [\d.]+', said)
    longer = ['train_cfg.max_iters=3', 'train_cfg.val_interval=3', 'default_hooks.checkpoint.interval=3']
    assert main(['train', str(path), '--resume', *work, '--cfg-options', *longer]) == 0
    assert re.findall(r'Iter\(train\) *\[(\d)/3\]', printed(capsys)) == ['3']
    assert main(['test', str(path), str(tmp_path / 'work/iter_3.pth'), '--tta', *work]) == 0
    assert re.search(r'Iter\(test\) .*mIoU: [\d.]+', printed(capsys))
