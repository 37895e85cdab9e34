"""`mmseg-volo train --data FOLDER --model NAME`, as a user calls it."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import folder_data as fd
from helpers.folder_training import apart, train  # noqa: F401
from helpers.paths import ROOT
from helpers.tiny_training import write_config
from mmengine.registry import DATASETS, DefaultScope
from PIL import Image

import mmseg_volo
from mmseg_volo.autotrain import batch_size as memory
from mmseg_volo.autotrain import run as start
from mmseg_volo.config import load_config
from mmseg_volo.datasets.check import config as check
from mmseg_volo.datasets.lists import read_classes
from mmseg_volo_cli import main

lay_camvid = runpy.run_path(str(ROOT / 'benchmarks/camvid_as_folder.py'))['lay']


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
    monkeypatch.setattr(check, 'scan', None)  # every file was looked at once
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
    stops = [hook for hook in cfg.custom_hooks if hook.type == 'ResumableEarlyStoppingHook']
    assert [hook.monitor for hook in stops] == ['mIoU']


def test_resume_takes_the_plan_as_it_was(capsys: pytest.CaptureFixture) -> None:
    data = fd.write(Path('data'), 6)
    assert train(data, '--epochs', '1') == 0
    before = Path('work/recipe/work.py').read_text()
    assert train(data, '--epochs', '2') == 2
    assert '--resume goes on with it as it was' in capsys.readouterr().err
    assert train(data, '--epochs', '1', '--resume') == train(data, '--resume') == 0
    assert Path('work/recipe/work.py').read_text() == before


def test_an_edited_recipe_is_not_written_over(capsys: pytest.CaptureFixture) -> None:
    data = fd.write(Path('data'), 4)
    assert train(data, '--plan-only') == train(data, '--plan-only') == train(data, '--plan-only', '--seed', '1') == 0
    for name in ('work.py', 'train.csv'):
        path = Path('work/recipe', name)
        before = path.read_bytes()
        path.write_bytes(before + b'\n# mine\n')
        capsys.readouterr()
        for more in ([], ['--plan-only'], ['--plan-only', '--seed', '2']):
            assert train(data, '--seed', '1', *more) == 2
            said = f'{path} was edited since it was written, .* train with them by '
            said += 'mmseg-volo train work/recipe/work.py, choose'
            assert re.search(said, capsys.readouterr().err)
        assert path.read_bytes().endswith(b'# mine\n')
        path.write_bytes(before)
    Path('work/recipe/.written.json').unlink()  # written by an older version
    assert train(data, '--plan-only', '--seed', '1') == 0
    Path('work/recipe/.written.json').unlink()
    assert train(data, '--plan-only', '--seed', '2') == 2


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


def test_a_model_that_cannot_be_built(capsys: pytest.CaptureFixture) -> None:
    data, odd = fd.write(Path('data'), 4), "model['backbone']['arch']['dims'] = [8, 8, 16, 16]\n"
    assert train(data, model=write_config(Path.cwd(), odd)) == 2
    error = capsys.readouterr().err
    assert 'error: the model of the config given to --model cannot be built: attention has heads of 32' in error
    assert not Path('work/recipe').exists()


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

    monkeypatch.setattr(start, 'collect_stats', stop)
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

    monkeypatch.setattr('mmseg_volo.autotrain.config_writer.write_whole', full)
    assert train(fd.write(Path('data'), 4)) == 2
    assert 'recipe cannot be written (No space left on device): make room' in capsys.readouterr().err


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
