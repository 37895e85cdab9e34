"""Images that are no 8-bit RGB, from the file to the prediction."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers import folder_data as fd
from helpers.folder_training import apart, train  # noqa: F401
from mmengine.registry import DATASETS
from PIL import Image

from mmseg_volo.config import load_config
from mmseg_volo.datasets.loading import LoadMultiBandImage
from mmseg_volo.errors import BadFileError, UsageError
from mmseg_volo.io.multiband import is_plain, read_bands, to_picture
from mmseg_volo_cli import main

PIXELS = np.random.default_rng(0).integers(0, 60000, (12, 20, 6)).astype(np.uint16)


def write_tiff(path: Path, pixels: np.ndarray) -> None:
    rasterio = pytest.importorskip('rasterio')
    height, width, count = pixels.shape
    with rasterio.open(path, 'w', 'GTiff', width, height, count, dtype=pixels.dtype) as file:
        file.write(pixels.transpose(2, 0, 1))


@pytest.mark.filterwarnings('ignore::rasterio.errors.NotGeoreferencedWarning')
def test_many_channels_are_no_line_of_pillow_for_each_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_tiff(tmp_path / 'a.tif', np.concatenate([PIXELS, PIXELS], 2))
    assert not is_plain(tmp_path / 'a.tif') and not caplog.records


@pytest.mark.filterwarnings('ignore::rasterio.errors.NotGeoreferencedWarning')
@pytest.mark.parametrize('count', [1, 3, 4, 6])
def test_channels_come_in_the_order_of_the_file(tmp_path: Path, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tiff(tmp_path / 'a.tif', PIXELS[..., :count])
    np.save(tmp_path / 'a.npy', PIXELS[..., :count])
    assert not is_plain(tmp_path / 'a.tif') and not is_plain(tmp_path / 'a.npy')
    for name in ('a.tif', 'a.npy'):
        np.testing.assert_array_equal(read_bands(tmp_path / name)[0], PIXELS[..., :count])
    monkeypatch.setitem(sys.modules, 'rasterio', None)
    if count > 1:
        with pytest.raises(UsageError, match='pip install rasterio'):
            read_bands(tmp_path / 'a.tif')
    else:
        np.testing.assert_array_equal(read_bands(tmp_path / 'a.tif')[0], PIXELS[..., :count])


def test_what_is_plain(tmp_path: Path) -> None:
    rgb = (PIXELS[..., :3] >> 8).astype(np.uint8)
    for mode, suffix in (('RGB', 'jpg'), ('RGBA', 'png'), ('L', 'png'), ('P', 'png'), ('RGB', 'tif'), ('1', 'png')):
        path = tmp_path / f'{mode}.{suffix}'
        Image.fromarray(rgb).convert(mode).save(path)
        assert is_plain(path), path
    cv2.imwrite(str(tmp_path / 'deep.png'), PIXELS[..., :3])
    cv2.imwrite(str(tmp_path / 'grey.png'), PIXELS[..., 0])
    assert not is_plain(tmp_path / 'deep.png') and not is_plain(tmp_path / 'grey.png')
    np.testing.assert_array_equal(read_bands(tmp_path / 'deep.png')[0], PIXELS[..., 2::-1])


def test_broken_files_are_named(tmp_path: Path) -> None:
    (tmp_path / 'a.npy').write_bytes(b'nothing')
    (tmp_path / 'a.tif').write_bytes(b'II*\x00nothing')
    np.save(tmp_path / 'words.npy', np.array([['a', 'b']]))
    for name in ('a.npy', 'a.tif', 'words.npy', 'none.npy'):
        with pytest.raises(BadFileError, match=name):
            read_bands(tmp_path / name)


def test_normalised_by_channel_and_held_to_its_kind() -> None:
    load = LoadMultiBandImage([1.0, 2.0], [2.0, 4.0], 'uint16')
    image = np.full((2, 2, 2), 5, np.uint16)
    np.testing.assert_array_equal(load(dict(img=image))['img'][0, 0], [2.0, 0.75])
    with pytest.raises(UsageError, match='2 channels of uint8, expected 2 of uint16, as in training'):
        load(dict(img=image.astype(np.uint8)))
    with pytest.raises(UsageError, match='1 channels'):
        load(dict(img=image[..., :1]))


@pytest.mark.parametrize('image, suffix', [(fd.deep, '.png'), (fd.five_channels, '.npy')], ids=['16 bits', '5'])
def test_every_command_takes_them(image: fd.Write, suffix: str, capsys: pytest.CaptureFixture) -> None:
    data = fd.write(Path('data'), 4, image=image, suffix=suffix)
    assert train(data, '--plan-only') == 0
    config = 'work/recipe/work.py'
    assert main(['check', config]) == 0
    assert main(['train', config, '--no-amp', '--work-dir', 'again']) == 0
    (best,) = map(str, Path('again').glob('best*.pth'))
    assert main(['test', config, best, '--show-dir', 'shown', '--out', 'masks']) == 0
    assert main(['test', config, best, '--format-only', '--out', 'sent']) == 0
    (shown,), (mask,) = Path('shown').rglob('*.jpg'), Path('sent').glob('*.png')
    assert Image.open(mask).size == (fd.SIDE, fd.SIDE) and Image.open(shown).width == 3 * fd.SIDE
    assert to_picture(data / 'images' / f'00{suffix}').shape == (fd.SIDE, fd.SIDE, 3)
    if suffix == '.png':
        assert main(['predict', best, str(data / 'images'), '--out', 'predicted']) == 0
        assert len([*Path('predicted/masks').iterdir()]) == 4


def infrared(path: Path, image: np.ndarray) -> None:
    write_tiff(path, np.dstack([image, 255 - image[..., 0] // 2]))


def heat(path: Path, image: np.ndarray) -> None:
    Image.fromarray(np.dstack([image, 255 - image[..., 0] // 2])).save(path)


def cut_out(image: np.ndarray) -> np.ndarray:
    return np.dstack([image, np.where(np.arange(fd.SIDE)[:, None] < 9, 0, np.full(image.shape[:2], 255))]).astype('u1')


@pytest.mark.filterwarnings('ignore::rasterio.errors.NotGeoreferencedWarning')
@pytest.mark.parametrize('image, suffix', [(infrared, '.tif'), (heat, '.png')], ids=['GeoTIFF', 'PNG'])
def test_what_is_called_alpha_and_varies_is_a_channel(
    image: fd.Write, suffix: str, capsys: pytest.CaptureFixture
) -> None:
    data = fd.write(Path('data'), 4, image=image, suffix=suffix)
    assert train(data) == 0
    out = capsys.readouterr().out
    assert '4 channels of uint8' in out and 'channel 4 is called alpha by 4 of 4 images, but varies' in out
    (best,) = map(str, Path('work').glob('best*.pth'))
    assert main(['test', 'work/recipe/work.py', best, '--out', 'tested']) == 0
    assert main(['predict', best, str(data / 'images'), '--out', 'predicted']) == 0
    tested = sorted(Path('tested').rglob('*.png'))
    assert tested
    for path in tested:  # all four channels, as in training
        np.testing.assert_array_equal(
            Image.open(path), Image.open(next(Path('predicted/masks').glob(f'{path.stem}.*')))
        )
    plain = fd.write(Path('plain'), 1, suffix='.png')
    assert main(['predict', best, str(plain / 'images'), '--out', 'other']) != 0


@pytest.mark.filterwarnings('ignore::rasterio.errors.NotGeoreferencedWarning')
@pytest.mark.parametrize('kind', ['TIFF', 'PNG', 'one of two', 'unnamed', 'grey'])
def test_alpha_is_left_out_where_it_is_one(kind: str, capsys: pytest.CaptureFixture) -> None:
    def image(path: Path, pixels: np.ndarray) -> None:
        if kind == 'one of two':
            (infrared if int(path.stem) % 2 else write_tiff)(path, pixels)
        elif kind == 'unnamed':
            rasterio = pytest.importorskip('rasterio')
            how = dict(count=4, dtype='uint8', photometric='RGB', alpha='NO', width=fd.SIDE, height=fd.SIDE)
            with rasterio.open(path, 'w', 'GTiff', **how) as file:
                file.write(cut_out(pixels).transpose(2, 0, 1))
        elif kind == 'grey':
            write_tiff(path, cut_out(pixels)[..., 2:])
        else:
            (write_tiff if kind == 'TIFF' else fd.rgb)(path, cut_out(pixels))

    data = fd.write(Path('data'), 4, image=image, suffix='.png' if kind == 'PNG' else '.tif')
    assert train(data, '--plan-only') == 0
    out = capsys.readouterr().out
    said = {'unnamed': '4 channels of uint8', 'grey': '2 channels of uint8'}.get(kind, '8-bit RGB')
    assert said in out and ('by 2 of 4 images and left out, though' in out) == (kind == 'one of two')


@pytest.mark.filterwarnings('ignore::rasterio.errors.NotGeoreferencedWarning')
def test_pixels_without_data_are_neutral_and_ignored(capsys: pytest.CaptureFixture) -> None:
    def holed(path: Path, image: np.ndarray) -> None:
        pixels = image.astype(np.float32)
        pixels[:8] = np.nan
        pixels[9, 9, 0] = np.nan  # in one channel only
        write_tiff(path, pixels)

    data = fd.write(Path('data'), 4, image=holed, suffix='.tif')
    assert train(data) == 0
    out = capsys.readouterr().out
    assert next(line for line in out.splitlines() if line.startswith('ignored ')).split()[2] == '12.500'
    assert '2048 pixels of masks are ignored' in out
    assert main(['check', 'work/recipe/work.py']) == 0
    assert '12.500 %' in capsys.readouterr().out
    cfg = load_config('work/recipe/work.py')
    for loader, steps in ((cfg.train_dataloader, 2), (cfg.val_dataloader, None)):
        dataset = DATASETS.build({**loader.dataset, 'pipeline': loader.dataset.pipeline[:steps]})
        for item in dataset:
            if steps:
                image, mask = item['img'], item['gt_seg_map']
                assert np.isfinite(image).all() and not image[:8].any() and not image[9, 9, 0]
            else:
                mask = item['data_samples'].gt_sem_seg.data[0].numpy()
                assert np.isfinite(item['inputs'].numpy()).all()
            assert (mask[:8] == 255).all() and mask[8:].max() < 255
