"""Networks see the pixels that their weights were trained on, and what differs is said."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from helpers.paths import ROOT
from helpers.tiny_coatnet import HALF, KNOWN, SMALL, built, fields, randomise
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import MODELS, DefaultScope
from PIL import Image
from safetensors import safe_open
from timm.data import create_transform, resolve_data_config

import mmseg_volo
from mmseg_volo.autotrain.adapt import as_weights_expect
from mmseg_volo.autotrain.recipe import ImageProperties
from mmseg_volo.config import load_config, shipped_configs
from mmseg_volo.engine.runner import SegRunner
from mmseg_volo.errors import UsageError
from mmseg_volo.io.checkpoint import RECORD
from mmseg_volo.io.weights import read_source, url_of
from mmseg_volo.models import pretrained as zoo
from mmseg_volo.models.backbones import CoAtNet
from mmseg_volo.models.normalisation import (
    PIXELS,
    Normalisation,
    applied_normalisation,
    expected_normalisation,
    mismatch,
    mismatches,
    trained_size,
)
from mmseg_volo_cli import main

IMAGENET = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
STARTS = {name: load_config(name).model.backbone.get('init_cfg') for name in shipped_configs()}


@pytest.mark.parametrize('name', STARTS)
def test_a_config_gives_what_its_weights_expect(name: str) -> None:
    model = load_config(name).model
    if STARTS[name] is None:
        assert name in ('volo_camvid', 'volo_demo')  # from scratch
        return
    record = zoo.record_of(STARTS[name].checkpoint)
    assert (record.family, record.arch) == (model.backbone.type, model.backbone.arch)
    assert record.pixels == model.backbone.get('pretrain_img_size', 224)
    before = model.data_preprocessor
    assert (tuple(before.mean), tuple(before.std)) == (record.mean, record.std)
    assert before.bgr_to_rgb and before.type == 'SegDataPreProcessor'


def test_every_published_file_has_one_record() -> None:
    rows = zoo.available()
    assert len(rows) > 80
    for row in rows:
        assert zoo.record_of(row.checkpoint) == row
        assert all(zoo.record_of(twin) == row for twin in row.twins)
        if row.checkpoint.startswith('timm://'):
            cfg = timm.get_pretrained_cfg(row.checkpoint.removeprefix('timm://'))
            assert row.mean == pytest.approx([255 * value for value in cfg.mean])
            assert row.std == pytest.approx([255 * value for value in cfg.std])
            theirs = (cfg.input_size[-1], cfg.interpolation, cfg.license)
            assert (row.pixels, row.interpolation, row.licence) == theirs
        else:
            assert (row.mean, row.std) == IMAGENET
        half = row.family == 'CoAtNet' and row.arch != 'bn_0_rw'
        assert (row.mean, row.std) == (HALF if half else IMAGENET)
        assert row.licence and row.source


@pytest.mark.parametrize(
    'source, checkpoint',
    [
        ('timm://coatnet_0_rw_224', 'timm://coatnet_0_rw_224.sw_in1k'),
        ('https://huggingface.co/timm/volo_d1_384.sail_in1k/resolve/main/model.safetensors', 'volo_d1_384.sail_in1k'),
        ('https://github.com/sail-sg/volo/releases/download/volo_1/d1_384_85.2.pth.tar', 'volo_d1_384.sail_in1k'),
        ('https://proxy.org/https://github.com/sail-sg/volo/releases/download/volo_1/d2_224_85.2.pth.tar', 'd2_224'),
        ('https://huggingface.co/sail/dl/resolve/main/caformer/caformer_s18_384_in21ft1k.pth', 'in22k_ft_in1k_384'),
        ('some/where/d5_512_87.07.pth.tar', 'timm://volo_d5_512.sail_in1k'),
        ('83.3_T2T_ViT_14.pth.tar', '83.3_T2T_ViT_14.pth.tar'),
        (KNOWN, 'timm://coatnet_0_rw_224.sw_in1k'),
        ('coatnet_2_rw_224.sw_in12k.safetensors', 'timm://coatnet_2_rw_224.sw_in12k'),
        ('hub/models--timm--caformer_s18.sail_in1k/snapshots/0a1/model.safetensors', 'caformer_s18.sail_in1k'),
        ('cache/huggingface.co/timm/caformer_s18.sail_in1k/resolve/main/model.safetensors', 'caformer_s18.sail_in1k'),
        ('coatnet_1_rw_224.sw_in1k/pytorch_model.bin', 'timm://coatnet_1_rw_224.sw_in1k'),
        # anybody's
        ('coatnet_1_rw_224.sw_in1k/iter_100.pth', None),
        ('caformer_s18.pth', None),
        ('model.safetensors', None),
        ('https://example.org/d1_384_85.2.pth.tar', None),
    ],
)
def test_weights_are_known_by_their_name(source: str, checkpoint: str | None) -> None:
    found = zoo.record_of(source)
    assert (found and checkpoint) == checkpoint
    assert found is None or checkpoint in found.checkpoint


@pytest.mark.parametrize(
    'name, reference', [('coatnet_0_rw_cityscapes', 'coatnet_0_rw_224'), ('volo_d1_cityscapes', 'volo_d1_224')]
)
@torch.no_grad()
def test_a_file_becomes_timms_features(name: str, reference: str, tmp_path: Path) -> None:
    """An image file through a config's test pipeline, preprocessor and backbone, and through timm's own."""
    pixels = np.random.default_rng(0).integers(0, 256, (224, 224, 3), np.uint8)
    pixels[..., 0] //= 2  # else the order of channels would not show
    Image.fromarray(pixels).save(tmp_path / 'image.png')
    theirs = timm.create_model(reference).eval()
    theirs = randomise(theirs) if 'coatnet' in name else theirs
    torch.save(theirs.state_dict(), tmp_path / 'timm.pth')
    data = {**resolve_data_config(model=theirs), 'crop_pct': 1.0}
    image = create_transform(**data)(Image.open(tmp_path / 'image.png'))[None]
    if 'volo' in name:
        (expected,) = theirs.forward_intermediates(image, indices=[3], norm=False, intermediates_only=True)
    else:
        expected = theirs.forward_intermediates(image, indices=[4], intermediates_only=True)[-1]

    cfg = load_config(name)
    start = dict(type='Pretrained', checkpoint=str(tmp_path / 'timm.pth'))
    with DefaultScope.overwrite_default_scope('mmseg'):
        before = MODELS.build(cfg.model.data_preprocessor).eval()
        backbone = MODELS.build({**cfg.model.backbone, 'out_norm': False, 'pretrain_img_size': 224, 'init_cfg': start})
        steps = Compose([step for step in cfg.test_pipeline if step.type != 'LoadAnnotations'])
        item = steps(dict(img_path=str(tmp_path / 'image.png')))
    backbone.init_weights()
    inputs = before(dict(inputs=[item['inputs']], data_samples=[item['data_samples']]), False)['inputs']
    torch.testing.assert_close(inputs, image, rtol=0, atol=1e-5)
    found = backbone.eval()(inputs)[-1]
    torch.testing.assert_close(found / expected.std(), expected / expected.std(), rtol=0, atol=1e-4)


def test_a_training_says_that_weights_see_other_pixels(small: Config, capsys: pytest.CaptureFixture) -> None:
    runner = SegRunner.from_cfg(small)
    runner._init_model_weights()
    (line,) = (line for line in capsys.readouterr().out.splitlines() if 'WARNING' in line)
    assert f'{KNOWN} was trained on RGB of mean 127.5, 127.5, 127.5 and std 127.5, 127.5, 127.5' in line
    assert 'gives it RGB of mean 123.675, 116.28, 103.53 and std 58.395, 57.12, 57.375' in line


@pytest.mark.parametrize(
    'before, steps, said',
    [
        (dict(mean=HALF[0], std=HALF[1], bgr_to_rgb=True), [], None),
        (dict(mean=HALF[0], std=HALF[1]), [], 'gives it BGR of mean 127.5'),
        (dict(mean=None, std=None, bgr_to_rgb=True), [], 'gives it RGB values from 0 to 255'),
        (dict(), [dict(type='Normalize', mean=HALF[0], std=HALF[1])], None),
        (dict(), [dict(type='Normalize', mean=HALF[0], std=[1.0] * 3, to_rgb=False)], 'BGR of mean .* std 1, 1, 1'),
        (
            dict(),
            [dict(type='LoadMultiBandImage', mean=[500.0] * 3, std=[90.0] * 3)],
            None,
        ),  # ImageNet's may start on them
        (dict(mean=[0.0] * 3, std=[1.0] * 3, bgr_to_rgb=True), [], 'gives it RGB values from 0 to 255'),
    ],
)
def test_what_a_model_is_given(before: dict, steps: list[dict], said: str | None, small: Config) -> None:
    small.model.data_preprocessor = dict(type='SegDataPreProcessor', size=(64, 64), **before)
    found = [*mismatches(built(small), steps)]
    assert (not found) if said is None else re.search(said, *found)


def test_other_channels_than_three_are_left_alone(small: Config) -> None:
    small.model.backbone.in_channels = 4
    assert not [*mismatches(built(small), [])]


def test_checkpoints_say_how_their_images_were_normalised(small: Config, tmp_path: Path) -> None:
    """Of ours, in the runner and in `load`, and as a start; of converted ones too."""
    model, path = built(small), tmp_path / 'ours.pth'
    weights = {f'backbone.{key}': value for key, value in model.backbone.state_dict().items()}
    meta = {RECORD: Config(dict(model=small.model)).to_dict()}
    torch.save(dict(state_dict=model.state_dict(), meta=meta), path)
    assert expected_normalisation(path) == Normalisation(*IMAGENET)
    assert main(['weights', 'convert', str(path), str(tmp_path / 'b.safetensors'), '--prefix', 'backbone.']) == 0
    assert expected_normalisation(tmp_path / 'b.safetensors') == Normalisation(*IMAGENET)
    torch.save(dict(state_dict=weights, meta={PIXELS: 'nonsense', RECORD: 3}), tmp_path / 'other.pth')
    assert expected_normalisation(tmp_path / 'other.pth') is None

    small.model.data_preprocessor.update(mean=HALF[0], std=HALF[1])
    small.model.backbone.init_cfg = dict(type='Pretrained', checkpoint=str(path), prefix='backbone.')
    (said,) = mismatches(built(small), [])
    assert re.search('ours.pth was trained on RGB of mean 123.675.* gives it RGB of mean 127.5', said)
    small.model.backbone.init_cfg = None
    small.test_pipeline = [dict(type='LoadImageFromFile')]
    small.test_dataloader = dict(dataset=dict(type='ADE20KDataset'))
    with pytest.warns(UserWarning, match='ours.pth was trained on RGB of mean 123.675'):
        mmseg_volo.load(small, path, device='cpu')


def test_a_runner_says_it_of_a_checkpoint(small: Config, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    other = Config(dict(model=small.model)).to_dict()
    other['model']['data_preprocessor'].update(mean=HALF[0], std=HALF[1])
    torch.save(dict(state_dict=built(small).state_dict(), meta={RECORD: other}), tmp_path / 'ours.pth')
    SegRunner.from_cfg(small).load_checkpoint(str(tmp_path / 'ours.pth'))
    assert 'ours.pth was trained on RGB of mean 127.5' in capsys.readouterr().out


def test_rounding_is_no_difference() -> None:
    rounded = Normalisation((123.68, 116.28, 103.53), (58.4, 57.12, 57.38))
    assert mismatch('x', Normalisation(*IMAGENET), rounded) is None


def test_converted_weights_keep_what_is_known(tmp_path: Path) -> None:
    arch = fields('0_rw', **SMALL)
    torch.save(CoAtNet(arch).state_dict(), tmp_path / KNOWN)
    assert main(['weights', 'convert', str(tmp_path / KNOWN), str(tmp_path / 'mine.safetensors')]) == 0
    assert expected_normalisation(tmp_path / 'mine.safetensors') == Normalisation(*HALF)
    known, pixels = trained_size('mine.safetensors', read_source(tmp_path / 'mine.safetensors'))
    assert (known.checkpoint, pixels) == ('timm://coatnet_0_rw_224.sw_in1k', 224)
    with safe_open(tmp_path / 'mine.safetensors', 'pt') as file:
        assert file.metadata()['source'] == KNOWN


def test_channels_that_are_no_colours_have_the_spread_that_weights_were_trained_on() -> None:
    """ImageNet's own channels, taken for channels of an unknown kind, become what the weights saw, on the average."""
    images = ImageProperties(64, 64, False, *IMAGENET)
    for mean, std in (IMAGENET, HALF):
        model = dict(data_preprocessor=dict(mean=mean, std=std), backbone=dict(init_cfg=dict(checkpoint='x')))
        found = as_weights_expect(images, model)
        seen = (np.array(IMAGENET[0]) - mean) / std, np.array(IMAGENET[1]) / std
        ours = (np.array(IMAGENET[0]) - found.mean) / found.std, np.array(IMAGENET[1]) / found.std
        for a, b in zip(seen, ours, strict=True):
            assert a.mean() == pytest.approx(b.mean(), abs=1e-4)
    assert as_weights_expect(images, {**model, 'backbone': {}}) == images  # from scratch


def test_unknown_names_of_timm() -> None:
    with pytest.raises(UsageError, match='no such weights'):
        zoo.record_of('timm://volo_d1_224.nobody')
    assert url_of('timm://coatnet_0_rw_224') == url_of('timm://coatnet_0_rw_224.sw_in1k')


def test_numbers_of_a_normalisation_are_typed_in_one_leaf_or_config() -> None:
    """None in the package, the benchmarks and the examples."""
    files = [path for room in ('mmseg_volo', 'benchmarks', 'examples', 'tools') for path in (ROOT / room).rglob('*.py')]
    assert len(files) > 100
    assert not [path for path in files if re.search(r'123\.675|58\.395|0\.485|0\.229', path.read_text())]


def test_given_to_reads_mmengines_preprocessor_too() -> None:
    before = dict(type='mmengine.ImgDataPreprocessor', mean=HALF[0], std=HALF[1], bgr_to_rgb=True)
    model = torch.nn.Module()
    model.data_preprocessor = MODELS.build(before)
    assert applied_normalisation(model, []) == Normalisation(*HALF)
