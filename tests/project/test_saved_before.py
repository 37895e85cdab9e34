"""Checkpoints and configs that were written before modules and registered types got their names of today still load.

`tests/data/before` was written by commit 602f60e. `small.py` (stored with `.txt`) and `small_iter_4.pth`: by
`mmseg-volo train --accumulate 2 --log tensorboard` of four updates on `scenes.generate(data, 6, 2, 64, 128)`, saved
after the second. `photos.py` and `photos.pth`: by `mmseg-volo train --data`. `expected.npz`: what that commit predicted
from both, and the classifier's weights after the fourth update.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import folder_data
from helpers.paths import TESTS

from mmseg_volo import load, predict
from mmseg_volo.datasets.synthetic import scenes
from mmseg_volo_cli import main

BEFORE = TESTS / 'data/before'
EXPECTED = np.load(BEFORE / 'expected.npz')


@pytest.fixture(autouse=True)
def configs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for path in BEFORE.glob('*.py.txt'):
        shutil.copy(path, path.stem)


@pytest.mark.parametrize('given', [('small_iter_4.pth',), ('photos.pth',), ('small.py', 'small_iter_4.pth')])
def test_predicts_the_same(given: tuple[str, ...]) -> None:
    model = load(*(name if name.endswith('.py') else BEFORE / name for name in given), device='cpu')
    found = predict(model, scenes.scene(0, 64, 128)[0], ('probability',))
    expected = EXPECTED[given[-1].partition('_')[0].removesuffix('.pth')]
    np.testing.assert_allclose(found.probability, expected, rtol=0, atol=1e-4)


def test_resumes_to_the_same_weights() -> None:
    scenes.generate(Path('data/demo'), 6, 2, 64, 128)
    Path('work').mkdir()
    shutil.copy(BEFORE / 'small_iter_4.pth', 'work/iter_4.pth')
    Path('work/last_checkpoint').write_text('iter_4.pth')
    assert main(['train', 'small.py', '--resume', '--work-dir', 'work', '--no-amp']) == 0
    state = torch.load('work/iter_8.pth', weights_only=True)['state_dict']
    np.testing.assert_allclose(state['decode_head.conv_seg.weight'], EXPECTED['conv_seg'], rtol=0, atol=1e-5)


def test_evaluates_by_the_config_of_a_folder() -> None:
    scenes.generate(Path('photos'), 1, 2, 64, 128)
    images = sorted(Path('photos/leftImg8bit/val').rglob('*.png'))
    masks = sorted(Path('photos/gtFine/val').rglob('*labelTrainIds.png'))
    rows = [[path.relative_to('photos').as_posix() for path in pair] for pair in zip(images, masks, strict=True)]
    codes = [[f'class_{value}' if value < 4 else '', str(value), ''] for value in (*range(19), 255)]
    Path('photos/recipe').mkdir()
    pairs = [['image', 'mask'], *rows]
    tables = dict(train=pairs, val=pairs, classes=[['class', 'code', 'colour'], *codes])
    for name, lines in tables.items():
        Path(f'photos/recipe/{name}.csv').write_text(''.join(f'{",".join(line)}\n' for line in lines))
    assert main(['test', 'photos.py', str(BEFORE / 'photos.pth'), '--out', 'masks']) == 0
    assert len(list(Path('masks').iterdir())) == len(images)


def test_a_recipe_for_deep_images_drops_the_steps_for_rgb() -> None:
    assert 'TablePhotoMetricDistortion' in Path('small.py').read_text()
    folder_data.write(Path('deep'), 4, image=folder_data.five_channels, suffix='.npy')
    given = ['--model', 'small.py', '--work-dir', 'work', '--weights', 'none', '--plan-only']
    assert main(['train', '--data', 'deep', *given]) == 0
    assert 'PhotoMetricDistortion' not in Path('work/recipe/work.py').read_text()
