"""MMSegmentation's `init_model`, `inference_model` and `MMSegInferencer` with our configs and recipes."""

from __future__ import annotations

from pathlib import Path

import cv2
import pytest
from helpers import folder_data, fresh, tiny_training
from helpers.model_files import save

from mmseg_volo.config import find_config, load_config
from mmseg_volo.datasets.loading import LoadMask
from mmseg_volo.datasets.synthetic import scenes
from mmseg_volo_cli import main

COATNET = """
small = dict(depths=[1, 1, 1, 1], dims=[8, 16, 32, 32], stem_width=[8, 8], dim_head=8)
model['backbone'] = dict(type='CoAtNet', arch=small)
"""
READ = """
import numpy as np
expected = np.load(MASK)
assert len(np.unique(expected)) > 1
"""
INIT_MODEL = """
import cv2
from mmseg.apis import inference_model, init_model
model = init_model({config}, {weights}, device='cpu')
for image in (IMAGE, cv2.imread(IMAGE)):
    assert np.array_equal(inference_model(model, image).pred_sem_seg.data[0].numpy(), expected)
"""
INFERENCER = """
import cv2
from mmseg.apis import MMSegInferencer
inferencer = MMSegInferencer({config}, {weights}, device='cpu'{scope})
inferencer.show_progress = False  # mmseg 1.2.2 takes no such argument
for image in (IMAGE, cv2.imread(IMAGE)):
    assert np.array_equal(inferencer(image)['predictions'], expected)
inferencer(IMAGE, out_dir='out')
import os
assert len(os.listdir('out/vis')) == 1
"""


@pytest.fixture(scope='module')
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp('image') / 'street.png'
    cv2.imwrite(str(path), scenes.scene(0, 75, 130)[0][..., ::-1])
    return path


def recipe(folder: Path) -> Path:
    """What `train --data` writes."""
    data = folder_data.write(folder / 'shapes', 8, folder_data.as_colours)
    model = str(tiny_training.write_config(folder))
    assert main(['train', '--data', str(data), '--model', model, '--plan-only', '--work-dir', str(folder / 'w')]) == 0
    return next((folder / 'w/recipe').glob('*.py'))


def coatnet(folder: Path) -> Path:
    """A config of another family."""
    return tiny_training.write_config(folder, COATNET)


KINDS = {'a shipped config': lambda folder: find_config('volo_demo'), 'a recipe': recipe, 'CoAtNet': coatnet}


def test_every_door_gives_our_mask(image: Path, tmp_path: Path) -> None:
    snippets = {}
    for kind, config_of in KINDS.items():
        folder = tmp_path / kind
        folder.mkdir()
        config = config_of(folder)
        weights, mask = save(load_config(config), folder, image)
        given = f'CONFIG, WEIGHTS, MASK = {str(config)!r}, {str(weights)!r}, {str(mask)!r}' + READ
        safe = dict(config='CONFIG', weights="'mmseg_volo://' + WEIGHTS")
        snippets[f'init_model, {kind}'] = given + INIT_MODEL.format(**safe)
        snippets[f'MMSegInferencer, {kind}'] = given + INFERENCER.format(**safe, scope='')
        snippets[f'a plain path, {kind}'] = given + INIT_MODEL.format(config='CONFIG', weights='WEIGHTS')
    assert not fresh.failures(snippets, tmp_path, fresh.MMSEG, IMAGE=image)


def test_names_of_shipped_configs(image: Path, tmp_path: Path) -> None:
    """MMEngine looks names up in a package's index, in the scope that it is given; `init_model` takes files only."""
    weights, mask = save(load_config('volo_demo'), tmp_path, image)
    find = 'from mmseg_volo.config import find_config\n'
    scope, safe = ", scope='mmseg_volo'", "'mmseg_volo://' + WEIGHTS"
    snippets = {
        'init_model': READ + find + INIT_MODEL.format(config="find_config('volo_demo')", weights='WEIGHTS'),
        'MMSegInferencer': READ + INFERENCER.format(config="'volo_demo'", weights=safe, scope=scope),
    }
    assert not fresh.failures(snippets, tmp_path, WEIGHTS=weights, MASK=mask, IMAGE=image)


def test_what_is_no_image_alone_still_needs_its_mask() -> None:
    assert LoadMask().transform(dict(img=1)) == dict(img=1)
    for item in (dict(read_label=print), dict(seg_map_path='a.png')):
        with pytest.raises(KeyError):
            LoadMask().transform(item)
