"""Our inference API, and MMSegmentation's with our configs."""

from __future__ import annotations

from pathlib import Path

import cv2
import mmseg.apis
import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image

import mmseg_volo
from mmseg_volo.config import load_config
from mmseg_volo.datasets.synthetic import scenes
from mmseg_volo.errors import UsageError
from mmseg_volo.io.checkpoint import RECORD

CONFIG = 'volo_demo'


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of the demo's model in mmengine's layout."""
    path = tmp_path_factory.mktemp('weights') / 'demo.pth'
    torch.manual_seed(0)
    model = mmseg_volo.load(CONFIG, device='cpu')
    meta = dict(dataset_meta={k: model.dataset_meta[k] for k in ('classes', 'palette')})
    torch.save(dict(meta=meta, state_dict=model.state_dict()), path)
    return path


@pytest.fixture(scope='module')
def model(checkpoint: Path) -> torch.nn.Module:
    return mmseg_volo.load(CONFIG, checkpoint, device='cpu')


@pytest.fixture(scope='module')
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp('image') / 'scene.png'
    cv2.imwrite(str(path), scenes.scene(0, 75, 130)[0][..., ::-1])
    return path


def test_path_and_rgb_array_agree(model: torch.nn.Module, image: Path) -> None:
    by_path = mmseg_volo.predict(model, image)
    by_array = mmseg_volo.predict(model, np.array(Image.open(image)))
    again = mmseg_volo.predict(model, str(image))
    assert by_path.mask.shape == (75, 130) and by_path.mask.dtype == np.uint8
    assert by_path.classes == scenes.CLASSES and len(by_path.palette) == len(scenes.CLASSES)
    assert len(np.unique(by_path.mask)) > 1
    assert np.array_equal(by_path.mask, by_array.mask) and np.array_equal(by_path.mask, again.mask)


def test_colour_order_matters(model: torch.nn.Module, image: Path) -> None:
    rgb = np.array(Image.open(image))
    assert not np.array_equal(
        mmseg_volo.predict(model, rgb).mask, mmseg_volo.predict(model, rgb[..., ::-1].copy()).mask
    )


def test_grey_pictures(model: torch.nn.Module, tmp_path: Path) -> None:
    grey = scenes.scene(1, 64, 64)[0][..., 0].copy()
    cv2.imwrite(str(tmp_path / 'grey.png'), grey)
    by_array = mmseg_volo.predict(model, grey).mask
    assert np.array_equal(by_array, mmseg_volo.predict(model, tmp_path / 'grey.png').mask)


def test_many_images_give_a_result_or_an_error_each(model: torch.nn.Module, image: Path, tmp_path: Path) -> None:
    (tmp_path / 'README.txt').write_text('hello')
    given = [image, tmp_path / 'README.txt', tmp_path / 'none.jpg', np.zeros((5, 7), bool), object()]
    found = [*mmseg_volo.predict_each(model, given)]
    assert [type(f).__name__ for f in found] == [
        'Prediction',
        'UsageError',
        'FileNotFoundError',
        'Prediction',
        'UsageError',
    ]
    assert np.array_equal(found[0].mask, mmseg_volo.predict(model, image).mask) and found[3].mask.shape == (5, 7)
    assert 'README.txt' in str(found[1])


def test_one_pixel(model: torch.nn.Module) -> None:
    assert mmseg_volo.predict(model, np.zeros((1, 1, 3), np.uint8)).mask.shape == (1, 1)


def test_bad_files_are_named(model: torch.nn.Module, tmp_path: Path) -> None:
    (tmp_path / 'text.jpg').write_text('hello')
    with pytest.raises(ValueError, match=r'text.jpg \(5 bytes\) is not a readable picture'):
        mmseg_volo.predict(model, tmp_path / 'text.jpg')
    with pytest.raises(FileNotFoundError, match='no image at .*none.jpg'):
        mmseg_volo.predict(model, tmp_path / 'none.jpg')
    with pytest.raises(FileNotFoundError, match='no checkpoint at .*none.pth'):
        mmseg_volo.load(CONFIG, tmp_path / 'none.pth')


def test_a_bare_state_dict_and_safetensors_load(checkpoint: Path, image: Path, tmp_path: Path, model) -> None:
    from safetensors.torch import save_file

    weights = torch.load(checkpoint, weights_only=True)['state_dict']
    torch.save(weights, tmp_path / 'bare.pth')
    save_file({k: v.contiguous() for k, v in weights.items()}, tmp_path / 'bare.safetensors')
    expected = mmseg_volo.predict(model, image).mask
    for name in ('bare.pth', 'bare.safetensors'):
        loaded = mmseg_volo.load(CONFIG, tmp_path / name, device='cpu')
        assert np.array_equal(mmseg_volo.predict(loaded, image).mask, expected)
    with pytest.raises(ValueError, match='does not say which model it is for: give its config too'):
        mmseg_volo.load(tmp_path / 'bare.pth')


def test_mmsegs_functions_work_with_our_configs(checkpoint: Path, image: Path, model: torch.nn.Module) -> None:
    cfg = load_config(CONFIG)
    theirs = mmseg.apis.init_model(cfg, str(checkpoint), device='cpu')
    result = mmseg.apis.inference_model(theirs, str(image))
    expected = mmseg_volo.predict(model, image).mask
    assert np.array_equal(result.pred_sem_seg.data[0].numpy(), expected)


def test_mmsegs_inferencer_works_with_our_configs(checkpoint: Path, image: Path, model: torch.nn.Module) -> None:
    cfg = load_config(CONFIG)
    inferencer = mmseg.apis.MMSegInferencer(cfg.filename, str(checkpoint), device='cpu')
    result = inferencer(str(image), show=False)
    assert np.array_equal(result['predictions'], mmseg_volo.predict(model, image).mask)


def test_checkpoints_that_name_mmsegs_segmentor_load(tmp_path: Path) -> None:
    cfg = load_config('volo_demo')
    weights = mmseg_volo.load(cfg, device='cpu').state_dict()
    image = scenes.scene(0, 75, 130)[0]
    masks = []
    for name in ('EncoderDecoder', 'StreamingEncoderDecoder'):
        record = Config(dict(model={**cfg.model, 'type': name}, test_pipeline=cfg.test_pipeline)).to_dict()
        meta = dict(dataset_meta=dict(classes=scenes.CLASSES, palette=[[0, 0, 0]] * len(scenes.CLASSES)))
        torch.save(dict(meta={**meta, RECORD: record}, state_dict=weights), tmp_path / f'{name}.pth')
        model = mmseg_volo.load(tmp_path / f'{name}.pth', device='cpu')
        assert type(model).__name__ == name
        masks.append(torch.from_numpy(mmseg_volo.predict(model, image).mask.astype(int)))
    assert torch.equal(*masks) and len(masks[0].unique()) > 1


def test_classes_that_are_not_the_models_are_said():
    cfg = load_config('volo_demo', {'model.decode_head.num_classes': 7})
    with pytest.raises(UsageError, match=r'volo_demo\.py: the model predicts 7 classes, but the metadata lists 10'):
        mmseg_volo.load(cfg, device='cpu')
