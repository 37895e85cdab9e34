"""`mmseg-volo train --data FOLDER --model NAME`, as a user calls it."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import folder_data as fd
import numpy as np
import pytest
import torch
from conftest import ROOT
from http_files import empty_caches
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import DATASETS, MODELS, DefaultScope
from PIL import Image
from small import write_config

import mmseg_volo
from mmseg_volo import weights as weights_of_models
from mmseg_volo.config import load_config, shipped_configs
from mmseg_volo.cost import build_on_meta
from mmseg_volo.datasets import check
from mmseg_volo.folders import memory, plan, start
from mmseg_volo.folders.classes import Labels
from mmseg_volo.folders.fit import fit
from mmseg_volo.folders.lists import read_classes
from mmseg_volo.folders.masks import MaskRule
from mmseg_volo.folders.write import config_text, literal
from mmseg_volo_cli import main

QUICK = 'train_cfg = dict(max_iters=2, val_interval=2)\ndefault_hooks = dict(checkpoint=dict(interval=2))\n'
lay_camvid = runpy.run_path(str(ROOT / 'benchmarks/camvid_as_folder.py'))['lay']


@pytest.fixture(autouse=True)
def apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'torch'))


def train(data: Path, *options: str, model: str | Path | None = None) -> int:
    """The status of a training of two iterations, which writes one checkpoint, and the best one."""
    model = model or write_config(Path.cwd(), QUICK)
    return main(['train', '--data', str(data), '--model', str(model), '--work-dir', 'work', '--no-amp', *options])


def weights(path: str) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)['state_dict']


@pytest.mark.parametrize(
    'mask, image, suffix, classes',
    [
        (fd.as_colours, fd.rgb, '.png', 3),
        (fd.as_palette, fd.rgb, '.jpg', 3),
        (fd.as_black_and_white, fd.rgb, '.png', 2),
        (fd.as_sixteen_bits, fd.rgb, '.png', 300),
    ],
    ids=['colours', 'palette', 'binary', '300 classes'],
)
def test_trains_and_predicts(
    mask: fd.Write, image: fd.Write, suffix: str, classes: int, capsys: pytest.CaptureFixture
) -> None:
    data = fd.write(Path('data'), 6, mask, image, suffix)
    assert train(data) == 0
    said = capsys.readouterr().out
    assert 'train 5, val 1, validation by seed 0' in said
    assert 'the best weights are work/best_mIoU_iter_2.pth' in said
    (best,) = Path('work').glob('best_mIoU_iter_2.pth')
    found = mmseg_volo.predict(mmseg_volo.load(best, device='cpu'), data / 'images' / f'03{suffix}')
    assert found.mask.shape == (fd.SIDE, fd.SIDE) and len(found.classes) == classes


def test_the_config_alone_trains_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, 'survey', None)  # every file was looked at once
    data = fd.write(Path('data'), 6, fd.as_colours)
    names = ['none=0,0,0', 'red=200,30,30', 'blue=30,30,200']
    assert train(data, '--classes', *names, '--ignore', '0,0,0', '--seed', '5') == 0
    recipe = Path('work/recipe').rename('moved')
    tool = runpy.run_path(str(ROOT / 'tools/train.py'))['main']
    assert tool(['train', str(recipe / 'work.py'), '--work-dir', 'again', '--no-amp']) == 0
    one, other = weights('work/iter_2.pth'), weights('again/iter_2.pth')
    assert all(torch.equal(one[key], other[key]) for key in one)
    cfg = load_config(recipe / 'work.py')
    assert cfg.randomness.seed == 5 and cfg.num_classes == 2
    stops = [hook for hook in cfg.custom_hooks if hook.type == 'LastingEarlyStoppingHook']
    assert [hook.monitor for hook in stops] == ['mIoU']


def test_resume_takes_the_plan_as_it_was(capsys: pytest.CaptureFixture) -> None:
    data = fd.write(Path('data'), 6)
    assert train(data, '--epochs', '1') == 0
    before = Path('work/recipe/work.py').read_text()
    assert train(data, '--epochs', '2') == 2
    assert '--resume goes on with it as it was' in capsys.readouterr().err
    assert train(data, '--epochs', '2', '--resume') == 0
    assert Path('work/recipe/work.py').read_text() == before


@pytest.mark.parametrize(
    'options, said',
    [
        (['--model', 'caformer_s19'], 'is no backbone .* did you mean caformer_s18'),
        (['--epochs', '0'], '--epochs must be more than 0'),
        (['--size', '8'], 'at least 32'),
        (['--batch', '0'], '--batch must be at least 1'),
        (['--launcher', 'pytorch'], '--plan-only'),
        (['--data', 'none'], 'no folder at .*none'),
    ],
)
def test_wishes_that_cannot_be(options: list[str], said: str, capsys: pytest.CaptureFixture) -> None:
    assert train(fd.write(Path('data'), 2), *options) == 2
    assert re.search(said, capsys.readouterr().err)
    assert not Path('work').exists()


def test_config_or_data(capsys: pytest.CaptureFixture) -> None:
    for given in ([], ['volo_demo', '--data', 'x'], ['--data', 'x']):
        assert main(['train', *given]) == 2
        assert 'either a config, or both --data FOLDER and --model NAME' in capsys.readouterr().err


def test_copies_across_the_data_s_own_split_are_named(capsys: pytest.CaptureFixture) -> None:
    for split in ('train', 'val'):
        fd.write(Path('data') / split, 3)
    assert train(Path('data')) == 2
    assert 'copies of training images' in capsys.readouterr().err
    assert not Path('work').exists()


def test_interrupted_before_the_training(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(start, 'look_at_all', stop)
    assert train(fd.write(Path('data'), 2)) == 130
    assert 'Ctrl-C' in capsys.readouterr().err
    assert not Path('work').exists()


def test_a_small_disk(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(memory.shutil, 'disk_usage', lambda path: type('Usage', (), dict(free=1000)))
    assert train(fd.write(Path('data'), 4)) == 2
    assert 'GB free, and checkpoints of this model' in capsys.readouterr().err
    assert not Path('work').exists()


def test_a_full_disk(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr('mmseg_volo.folders.write.write_whole', full)
    assert train(fd.write(Path('data'), 4)) == 2
    assert 'recipe cannot be written (No space left on device): make room' in capsys.readouterr().err


FILE = 'huggingface.co/timm/caformer_s18.sail_in1k/resolve/main/model.safetensors'
NO_NETWORK = f'starts from .*{FILE} could not be fetched .*: fetch it by hand and save it as .*{FILE}.* --weights none'


@pytest.mark.parametrize(
    'model, given, said',
    [
        ('caformer_s18', [], f'--model caformer_s18 {NO_NETWORK} trains from random'),
        ('caformer_s18', ['--plan-only'], NO_NETWORK),
        ('caformer_s18', ['--resume'], NO_NETWORK),  # of nothing
        ('caformer_s18', ['--weights', 'timm://caformer_s18.sail_in1k_384'], 'sail_in1k_384.* fetch it by hand'),
        ('caformer_s18', ['--weights', 'lost.pth'], '--weights lost.pth: no file at .*lost.pth'),
        ('caformer_s18', ['--weights', 'timm://volo_d1_224.sail_in1k'], 'is for VOLO d1, and --model caformer_s18 is'),
        ('caformer_s18_ade20k', [], f'the model {NO_NETWORK} trains from random'),
        ('caformer_s18_ade20k', ['--plan-only'], NO_NETWORK),
        ('caformer_s18_ade20k', ['--weights', 'x.pth'], "is a config, which names its own; it takes 'none' only"),
        ('coatnet_0', [], 'for --model coatnet_0 no weights are published: .* --weights none trains from random'),
    ],
)
def test_no_weights_end_it(
    model: str, given: list[str], said: str, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the images are read, and anything is written."""
    no_network(monkeypatch)
    monkeypatch.setattr(start, 'look_at_all', None)
    assert train(fd.write(Path('data'), 2), *given, model=model) == 2
    error = capsys.readouterr().err.strip()
    assert re.search(said, error) and len(error.splitlines()) == 1, error
    assert [path.name for path in Path().iterdir()] == ['data']


def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    empty_caches(Path.cwd(), monkeypatch)
    monkeypatch.setenv('MMSEG_VOLO_OFFLINE', '1')


@pytest.mark.parametrize('model', ['caformer_s18', 'caformer_s18_ade20k', 'coatnet_0'])
def test_random_weights_are_asked_for(
    model: str, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_network(monkeypatch)
    assert train(fd.write(Path('data'), 2), '--weights', 'none', '--plan-only', model=model) == 0
    assert re.search('weights .*none.*from scratch', capsys.readouterr().out)
    assert 'init_cfg' not in load_config('work/recipe/work.py').model.backbone


def test_a_config_without_its_weights_does_not_start(
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_network(monkeypatch)
    data = fd.write(Path('data'), 2)
    assert train(data, '--plan-only', '--weights', 'none', model='caformer_s18') == 0
    options = [
        'model.backbone.init_cfg.type=Pretrained',
        'model.backbone.init_cfg.checkpoint=timm://caformer_s18.sail_in1k',
    ]
    capsys.readouterr()
    assert main(['train', 'work/recipe/work.py', '--work-dir', 'other', '--cfg-options', *options]) == 2
    assert re.search(NO_NETWORK.replace(' --weights none', 'init_cfg=None'), capsys.readouterr().err)
    assert not Path('other').exists()


HALF, IMAGENET = [127.5] * 3, [123.675, 116.28, 103.53]


@pytest.mark.parametrize(
    'model, source, mean, size',
    [
        ('coatnet_0_rw', None, HALF, 224),
        ('coatnet_nano_rw', None, HALF, 224),  # without a config
        ('coatnet_bn_0_rw', None, IMAGENET, 224),
        ('coatnet_rmlp_2_rw', None, HALF, 384),
        ('coatnet_rmlp_2_rw', 'timm://coatnet_rmlp_2_rw_224.sw_in12k_ft_in1k', HALF, 224),
        ('volo_d1', 'https://github.com/sail-sg/volo/releases/download/volo_1/d1_384_85.2.pth.tar', IMAGENET, 384),
        ('coatnet_1_rw', 'mine.pth', HALF, 224),  # nobody says: as the published ones
        ('coatnet_0_rw_cityscapes', None, HALF, 224),
    ],
)
def test_recipes_say_what_the_weights_expect(
    model: str,
    source: str | None,
    mean: list[float],
    size: int,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.save({}, 'mine.pth')
    for room in (plan, weights_of_models):  # they are all here
        monkeypatch.setattr(room, 'locate', lambda source: Path('mine.pth'))
    given = ['--weights', source] if source else []
    assert train(fd.write(Path('data'), 2), *given, '--plan-only', model=model) == 0
    said, cfg = capsys.readouterr().out, load_config('work/recipe/work.py').model
    assert cfg.data_preprocessor.mean == mean and cfg.data_preprocessor.bgr_to_rgb
    assert cfg.data_preprocessor.std == (HALF if mean == HALF else [58.395, 57.12, 57.375])
    assert cfg.backbone.get('pretrain_img_size', 224) == size
    assert re.search(f'pixels  .*RGB, mean {mean[0]:g} .*as these weights expect', said)
    assert ('does not say how its images were normalised: as for timm://coatnet_1_rw' in said) == (source == 'mine.pth')


@pytest.mark.parametrize(
    'name, classes, channels',
    [
        ('volo_d1', 2, 5),
        ('caformer_s18', 300, 3),
        ('t2t_vit_14', 300, 5),
        ('coatnet_rmlp_2_rw', 2, 3),
        ('randformer_s12', 19, 4),
    ],
)
def test_every_family_has_a_recipe(name: str, classes: int, channels: int, tmp_path: Path) -> None:
    pixels = 384 if name.startswith('coatnet') else 224
    normal = () if channels == 3 else ((1.0,) * channels, (2.0,) * channels)
    images = plan.Images(2000, 1000, True, *normal)
    weights = plan.Start('x.pth', pixels, '')
    cfg = plan.recipe(name, weights, images, plan.crop_of(images, None), 8, plan.length_of(300, 8, None, False), 300)
    labels = Labels(MaskRule('values', [*range(classes)]), tuple(f'c{i}' for i in range(classes)), None)
    text = config_text(fit(cfg, labels, images, None, 8, ('train', 'val'), '/data', 0), 'A test.')
    (tmp_path / 'config.py').write_text(text)
    assert max(map(len, text.splitlines())) <= 120
    model = build_on_meta(load_config(tmp_path / 'config.py')).eval()
    with torch.device('meta'):
        maps = model.extract_feat(torch.empty(1, channels, *cfg['crop_size']))
        assert model.decode_head(maps).shape == (1, classes, 128, 128)
    assert model.decode_head.ignore_index == (255 if classes < 256 else 65535)


@pytest.mark.parametrize('name', [n for n in shipped_configs() if n.endswith('_ade20k')])
def test_a_backbone_trains_as_its_shipped_config(name: str) -> None:
    """At the recipes' batch: learning rates with their ends, weight and layer decay, drop path, norms and neck."""
    theirs, images = load_config(name).to_dict(), plan.Images(512, 512, True)
    cfg = plan.recipe(name.removesuffix('_ade20k'), plan.Start('x.pth', 224, ''), images, (512, 512), 16, 40_000, 300)
    for key in ('lr', 'weight_decay'):
        assert cfg['optim_wrapper']['optimizer'][key] == theirs['optim_wrapper']['optimizer'][key]
    assert cfg['optim_wrapper'].get('paramwise_cfg') == theirs['optim_wrapper'].get('paramwise_cfg')
    theirs['param_scheduler'][1]['end'] = 40_000
    assert cfg['param_scheduler'] == theirs['param_scheduler']
    for key in ('drop_path_rate', 'out_norm'):
        assert cfg['model']['backbone'].get(key) == theirs['model']['backbone'].get(key), key
    assert cfg['model'].get('neck') == theirs['model'].get('neck')
    assert cfg['model']['test_cfg'].keys() >= {'mode'}


def test_from_scratch_no_layer_is_held_back() -> None:
    for name in ('caformer_s18', 'volo_d5'):
        cfg = plan.recipe(name, plan.Start(None, 224, ''), plan.Images(512, 512, True), (512, 512), 4, 100, 30)
        assert cfg['optim_wrapper']['optimizer'] == dict(type='AdamW', lr=2.5e-4, weight_decay=0.05)
        assert 'paramwise_cfg' not in cfg['optim_wrapper'] and cfg['param_scheduler'][1]['eta_min'] == 0
        assert cfg['model']['backbone']['drop_path_rate'] == 0.1


@pytest.mark.parametrize('model', ['volo_d1', 'caformer_s18_ade20k_segformer', 'volo_camvid'])
def test_own_data_is_averaged_over_labelled_pixels(model: str) -> None:
    """Where the shipped configs for Cityscapes and ADE20K count all, as few are unlabelled there."""
    images = plan.Images(512, 512, True)
    base = plan.shipped(model, None, None) if plan.is_shipped(model) else None
    base = base or plan.recipe(model, plan.Start('x.pth', 224, ''), images, (512, 512), 4, 100, 30)
    labels = Labels(MaskRule('values', [0, 1, 2]), ('a', 'b', 'c'), None)
    for weights in (None, [0.5, 1.0, 1.5]):
        fitted = fit(base, labels, images, weights, 4, ('train', 'val'), '/data', 0)['model']
        losses = [fitted[k]['loss_decode'] for k in ('decode_head', 'auxiliary_head') if k in fitted]
        assert all(loss['type'] == 'WeightedCrossEntropy' or loss['avg_non_ignore'] for loss in losses)


def test_a_gpu_takes_what_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def step(model: torch.nn.Module, images: int, *_: Any) -> None:
        tried.append(images)
        if images > 4:
            raise torch.cuda.OutOfMemoryError

    monkeypatch.setattr(torch.nn.Module, 'cuda', lambda self, *_: self)
    for name, value in (('memory_allocated', 0), ('max_memory_allocated', 0), ('mem_get_info', (1 << 40, 1 << 40))):
        monkeypatch.setattr(torch.cuda, name, lambda value=value: value)
    for name in ('reset_peak_memory_stats', 'empty_cache'):
        monkeypatch.setattr(torch.cuda, name, lambda: None)
    cfg = load_config(write_config(Path.cwd(), 'crop_size = (64, 64)\n'))
    with DefaultScope.overwrite_default_scope('mmseg'):
        model = revert_sync_batchnorm(MODELS.build(cfg.model)).train()
    memory._step(model, 2, 3, (64, 64))
    assert all(p.grad is not None for p in model.parameters())
    monkeypatch.setattr(memory, '_step', step)
    assert memory.fitting_batch(cfg, 3, 100) == 4 and tried == [16, 8, 4]
    assert memory.fitting_batch(cfg, 3, 2) == 2


def test_source_of_values() -> None:
    value = dict(a=[dict(type='X', b=(1,), c=list(range(80)))], d={'x-y': None}, e='it\'s "so"')
    assert eval(literal(value, 0, 0)) == value


def items(dataset: dict, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Images and labels of a data set through its pipeline, with one seed for each."""
    with DefaultScope.overwrite_default_scope('mmseg'):
        built, found = DATASETS.build(dataset), []
    for i in range(count):
        np.random.seed(i)
        item = built[i]
        found.append((item['inputs'].numpy(), item['data_samples'].gt_sem_seg.data.numpy()))
    return found


def test_camvid_as_a_folder_is_the_camvid_config(camvid: Path, capsys: pytest.CaptureFixture) -> None:
    """The same pixels and indices, and bit for bit the same weights after training."""
    frames, own = 3, Path('own')
    for split in ('train', 'test'):
        for part, suffix in (('images', 'jpg'), ('labels', 'png')):
            (own / part / split).mkdir(parents=True)
            files = sorted((camvid / part / split).glob(f'*.{suffix}'))
            for path in files[:: len(files) // frames][:frames]:
                (own / part / split / path.name).symlink_to(path)
    data = lay_camvid(camvid, Path('data'), frames)
    assert train(data, '--plan-only', model='volo_camvid') == 0
    theirs = load_config('volo_camvid', dict(data_root='own'))
    ours = load_config('work/recipe/work.py')
    classes, _, _, palette = read_classes(Path('work/recipe/classes.csv'))
    known = DATASETS.get('CamVidDataset').METAINFO
    assert (classes, [*map(list, palette)]) == (known['classes'], known['palette'])
    for role in ('train_dataloader', 'val_dataloader'):
        pairs = zip(items(ours[role].dataset, frames), items(theirs[role].dataset, frames), strict=True)
        for one, other in pairs:
            assert np.array_equal(one[0], other[0]) and np.array_equal(one[1], other[1])
    short = 'train_cfg.max_iters=2 train_cfg.val_interval=3 default_hooks.checkpoint.interval=2 randomness.seed=1'
    for config, root in (('work/recipe/work.py', 'data'), ('volo_camvid', 'own')):
        options = [f'data_root={root}', *short.split(), 'train_dataloader.batch_size=2']
        options += [f'{role}_dataloader.num_workers=0' for role in ('train', 'val')]
        options += [f'{role}_dataloader.persistent_workers=False' for role in ('train', 'val')]
        loss = ','.join(map(str, theirs.class_weight))  # those of all frames
        options.append(f'model.decode_head.loss_decode.class_weight=[{loss}]')
        assert main(['train', config, '--no-amp', '--work-dir', f'run_{root}', '--cfg-options', *options]) == 0
    one, other = weights('run_data/iter_2.pth'), weights('run_own/iter_2.pth')
    assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_what_was_understood_is_said(capsys: pytest.CaptureFixture) -> None:
    data = fd.write(Path('data'), 10, fd.as_palette)
    assert train(data, '--plan-only', '--classes', 'floor', 'box', 'ball', '--val-share', '0.3') == 0
    said = capsys.readouterr().out
    for part in ('10 of 64x64, 8-bit RGB', 'images + masks, by name', 'train 7, val 3', 'floor', 'ball'):
        assert part in said, said
    assert said.startswith(Path('work/recipe/understood.txt').read_text())
    assert not list(Path('work').glob('*.pth'))
    names, codes, ignored, palette = read_classes(Path('work/recipe/classes.csv'))
    assert (names, codes, ignored) == (('floor', 'box', 'ball'), [0, 1, 2], [])
    assert palette == [(0, 0, 0), (200, 30, 30), (30, 30, 200)]


def test_sizes_may_differ(capsys: pytest.CaptureFixture) -> None:
    data = fd.write(Path('data'), 6)
    for part in ('images', 'masks'):
        path = data / part / '02.png'
        Image.open(path).crop((0, 0, 50, 40)).save(path)
    assert train(data) == 0
    assert 'of 2 sizes, 64x64 median' in capsys.readouterr().out
