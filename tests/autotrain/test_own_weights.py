"""`train --data --weights FILE`: what a file says and shows of itself is taken over; what does not fit is refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import timm
import torch
from helpers import folder_data as fd
from helpers.folder_training import QUICK, apart, train  # noqa: F401
from helpers.tiny_training import write_config
from mmengine.registry import MODELS, DefaultScope

from mmseg_volo.autotrain import run as start
from mmseg_volo.autotrain.initial_weights import trained_on
from mmseg_volo.config import load_config
from mmseg_volo.io.checkpoint import RECORD
from mmseg_volo.models.backbones import VOLO, CAFormer, CoAtNet, RandFormer, T2TViT
from mmseg_volo.models.normalisation import PIXELS
from mmseg_volo_cli import main

MEAN, STD = [11184.0, 9000.0, 8000.0, 7000.0], [900.0, 800.0, 700.0, 600.0]


def four_channels(path: Path, image: np.ndarray) -> None:
    cv2.imwrite(str(path), np.concatenate([image, image[..., :1]], 2).astype(np.uint16) * 200)


def bands(channels: int) -> dict[str, Any]:
    return dict(order='file', mean=MEAN[:channels], std=STD[:channels])


def save(name: str, normalisation: dict[str, Any] | None = None, channels: int = 3) -> None:
    meta = {PIXELS: normalisation} if normalisation else {}
    torch.save(dict(state_dict=CAFormer('s18', in_channels=channels).state_dict(), meta=meta), name)


def planned(data: Path, weights: str, capsys: pytest.CaptureFixture, model: str = 'caformer_s18') -> tuple[Any, str]:
    """(config's model, what was said of its pixels) of a recipe whose weights load."""
    assert train(data, '--weights', weights, '--plan-only', model=model) == 0
    said = re.search('^pixels +(.*)$', capsys.readouterr().out, re.M)[1]
    cfg = load_config('work/recipe/work.py')
    with DefaultScope.overwrite_default_scope('mmseg'):
        backbone = MODELS.build(cfg.model.backbone)
    backbone.init_weights()
    return cfg, said


def test_statistics_of_other_channels_are_not_those_of_colours(capsys: pytest.CaptureFixture) -> None:
    save('bands.pth', bands(3))
    data = fd.write(Path('data'), 2)
    cfg, said = planned(data, 'bands.pth', capsys)
    assert cfg.model.data_preprocessor.mean == [123.675, 116.28, 103.53] and cfg.model.data_preprocessor.bgr_to_rgb
    assert said.startswith('RGB, mean 123.675') and 'expect' not in said
    understood = Path('work/recipe/understood.txt').read_text()
    assert 'trained on channels as in its files of mean 11184' in understood
    assert 'RGB is normalised as for timm://caformer_s18' in understood


@pytest.mark.parametrize('normalisation', [None, bands(4)], ids=['unknown', 'known'])
def test_weights_for_four_channels(normalisation: dict | None, capsys: pytest.CaptureFixture) -> None:
    save('four.pth', normalisation, 4)
    cfg, said = planned(fd.write(Path('data'), 2, image=four_channels), 'four.pth', capsys)
    assert cfg.model.backbone.in_channels == 4 and len(cfg.test_pipeline[0].mean) == 4
    assert said == 'each channel by its own mean and standard deviation in these images'
    assert train(fd.write(Path('rgb'), 2), '--weights', 'four.pth', '--work-dir', 'rgb_work', model='caformer_s18') == 2
    error = capsys.readouterr().err
    assert re.search('four.pth takes 4 channels, and these images have 3: leave --weights out, or', error), error
    assert not Path('rgb_work/recipe').exists()


@pytest.mark.parametrize('image', [fd.rgb, four_channels])
def test_bgr_weights(image: fd.Write, capsys: pytest.CaptureFixture) -> None:
    save('bgr.pth', dict(order='BGR', mean=[100.0, 110.0, 120.0], std=[60.0, 61.0, 62.0]))
    cfg, said = planned(fd.write(Path('data'), 2, image=image), 'bgr.pth', capsys)
    if image is fd.rgb:
        assert cfg.model.data_preprocessor.bgr_to_rgb is False and cfg.model.data_preprocessor.mean == [100, 110, 120]
        assert said == 'BGR, mean 100 110 120, std 60 61 62, as these weights expect'
    else:  # brought to what ImageNet has with this mean and deviation: its blue 103.53 less 100, and so on
        mean, std = re.search(r'gets a mean of (\S+) and a standard deviation of ([\d.]+), as', said).groups()
        blue, green, red = (103.53 - 100) / 60, (116.28 - 110) / 61, (123.675 - 120) / 62
        assert float(mean) == pytest.approx((blue + green + red) / 3, abs=0.006)
        assert float(std) == pytest.approx((57.375 / 60 + 57.12 / 61 + 58.395 / 62) / 3, abs=0.006)


def test_unnormalised_weights(capsys: pytest.CaptureFixture) -> None:
    record = dict(model=dict(data_preprocessor=dict(type='SegDataPreProcessor', bgr_to_rgb=True)))
    torch.save(dict(state_dict=CAFormer('s18').state_dict(), meta={RECORD: record}), 'plain.pth')
    cfg, said = planned(fd.write(Path('data'), 2), 'plain.pth', capsys)
    assert (cfg.model.data_preprocessor.mean, cfg.model.data_preprocessor.std) == ([0] * 3, [1] * 3)
    assert said == 'RGB, mean 0 0 0, std 1 1 1, as these weights expect'


def test_size_is_that_of_the_tables(capsys: pytest.CaptureFixture) -> None:
    """Whatever a file is called, and after `weights convert`."""
    torch.save(timm.create_model('volo_d1_384').state_dict(), 'volo_d1_384.sail_in1k.pth')
    data = fd.write(Path('data'), 2)
    Path('mine.pth').symlink_to('volo_d1_384.sail_in1k.pth')
    assert main(['weights', 'convert', 'volo_d1_384.sail_in1k.pth', 'mine.safetensors']) == 0
    for name in ('mine.pth', 'mine.safetensors'):
        cfg, _ = planned(data, name, capsys, 'volo_d1')
        assert cfg.model.backbone.pretrain_img_size == 384


@pytest.mark.parametrize(
    'name, build',
    [
        ('volo_d1', lambda **more: VOLO('d1', **more)),
        ('coatnet_nano_rw', lambda **more: CoAtNet('nano_rw', **more)),
        ('randformer_s12', lambda **more: RandFormer('s12', **more)),
        ('t2t_vit_7', lambda **more: T2TViT('7', **more)),
    ],
)
def test_shapes_show_what_was_trained_on(name: str, build: Any) -> None:
    for channels, pixels in ((3, 224), (4, 384), (1, 96)):
        with torch.device('meta'):
            weights = build(in_channels=channels, pretrain_img_size=pixels).state_dict()
        assert trained_on(name, weights, 224) == (channels, pixels)


def test_whole_checkpoints_of_ours() -> None:
    weights = {f'backbone.{key}': value for key, value in CAFormer('s18').state_dict().items()}
    torch.save(dict(state_dict={**weights, 'decode_head.conv_seg.weight': torch.zeros(3, 8, 1, 1)}), 'iter_9.pth')
    assert train(fd.write(Path('data'), 2), '--weights', 'iter_9.pth', '--plan-only', model='caformer_s18') == 0
    cfg = load_config('work/recipe/work.py')
    assert cfg.model.init_cfg.checkpoint.endswith('iter_9.pth') and 'init_cfg' not in cfg.model.backbone


def test_backbones_of_other_checkpoints() -> None:
    """Of a classifier, as mmpretrain saves it: no segmentor."""
    torch.save({f'backbone.{key}': value for key, value in CAFormer('s18').state_dict().items()}, 'classifier.pth')
    assert train(fd.write(Path('data'), 2), '--weights', 'classifier.pth', '--plan-only', model='caformer_s18') == 0
    assert load_config('work/recipe/work.py').model.backbone.init_cfg.prefix == 'backbone.'


@pytest.mark.parametrize('kind', ['another family', 'another size', 'no backbone', 'half', 'nan'])
def test_what_does_not_fit_is_refused_before_the_data(
    kind: str, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = VOLO('d1').state_dict()
    weights, said = {
        'another family': (CAFormer('s18').state_dict(), r'missing: .*unknown: '),
        'another size': ({**own, 'network.0.0.norm1.weight': torch.ones(7)}, r'1 of another shape: network.0.0.norm1'),
        'no backbone': ({'decode_head.conv_seg.weight': torch.ones(3)}, r'missing: .*1 unknown: decode_head'),
        'half': ({k: v for k, v in own.items() if not k.startswith('network.4')}, r'missing: network.4'),
        'nan': ({**own, 'pos_embed': own['pos_embed'] * float('nan')}, 'NaN or infinite: pos_embed'),
    }[kind]
    torch.save(weights, 'wrong.pth')
    monkeypatch.setattr(start, 'collect_stats', None)
    assert train(fd.write(Path('data'), 2), '--weights', 'wrong.pth', '--plan-only', model='volo_d1') == 2
    error = capsys.readouterr().err.strip()
    assert re.search(f'--weights wrong.pth .*{said}.*give weights of volo_d1, or another --model', error), error
    assert len(error.splitlines()) == 1 and 'pretrain_img_size' not in error
    assert not Path('work').exists()


def test_what_does_not_fit_a_config_is_refused_before_the_data(
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a training on a folder, and in one of a config."""
    torch.save(CAFormer('s18').state_dict(), 'wrong.pth')
    more = "model['backbone']['init_cfg'] = dict(type='Pretrained', checkpoint='wrong.pth')\n"
    config = write_config(Path.cwd(), QUICK + more)
    monkeypatch.setattr(start, 'collect_stats', None)
    assert train(fd.write(Path('data'), 2), '--plan-only', model=config) == 2
    assert main(['train', str(config), '--work-dir', 'work']) == 2
    assert len(re.findall('wrong.pth does not fit CAFormer: .* unknown', capsys.readouterr().err)) == 2
    assert not Path('work').exists()
