"""What a file may reach, claim and end: other files, addresses, memory, the folder that it lies in."""

from __future__ import annotations

import io
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers import folder_data
from helpers.hostile_files import png, said_twice, vrt
from helpers.predicting import command, times, write_photos
from helpers.tiny_training import predictor
from PIL import Image

from mmseg_volo.app.view import Limits, open_upload
from mmseg_volo.datasets.mask_codes import read_raw
from mmseg_volo.errors import UsageError
from mmseg_volo.io import image as pictures
from mmseg_volo.io.convert import to_rgb
from mmseg_volo.io.image import read_image, read_label
from mmseg_volo.io.image_size import sizes_of
from mmseg_volo.io.multiband import read_bands
from mmseg_volo_cli import main

SECRET = 77


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return predictor(tmp_path_factory.mktemp('weights'))


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Of this machine, to which nothing may connect meanwhile."""
    monkeypatch.setenv('GDAL_HTTP_TIMEOUT', '2')  # nobody answers
    with socket.create_server(('127.0.0.1', 0)) as server:
        server.setblocking(False)
        yield server.getsockname()[1]
        with pytest.raises(BlockingIOError):
            server.accept()


def rasters(folder: Path, port: int) -> dict[str, Path]:
    """Images that lead to a secret file, or to an address."""
    geotiffs = pytest.importorskip('geotiffs')
    (folder / 'elsewhere').mkdir(parents=True)
    secret = geotiffs.write(folder / 'elsewhere/secret.tif', np.full((3, 20, 30), SECRET, np.uint8))
    empty = geotiffs.write(folder / 'elsewhere/empty.tif', np.zeros((1, 20, 30), np.uint8))
    away = f'/vsicurl/http://127.0.0.1:{port}/a.tif'
    files = {}
    for name, source in (('file', secret), ('zip', f'/vsizip/{folder}/a.zip/a.tif'), ('address', away)):
        files[name] = folder / f'{name}.tif'
        files[name].write_text(vrt(source, 3, 30, 20))
    for name, source in (('mask.tif', empty), ('mask_away.tif', away), ('mask.jp2', empty)):
        files[name] = folder / name
        if name.endswith('.tif'):
            geotiffs.write(files[name], np.full((3, 20, 30), 9, np.uint8))
        else:
            cv2.imwrite(str(files[name]), np.full((96, 96, 3), 9, np.uint8))
        Path(f'{files[name]}.msk').write_text(vrt(source, 1, 30, 20))
    return files


@pytest.mark.parametrize('read', [read_image, read_bands, lambda path: to_rgb(path.read_bytes())])
def test_rasters_lead_nowhere(read: Callable, port: int, tmp_path: Path) -> None:
    for name, path in rasters(tmp_path / 'data', port).items():
        if name.startswith('mask') and read not in (read_image, read_bands):
            continue  # bytes have nothing beside them
        with pytest.raises(UsageError, match=r'no TIFF|none: remove it|virtual raster|not a readable'):
            read(path)


def test_what_a_raster_may_have_beside_it_is_read(tmp_path: Path) -> None:
    geotiffs = pytest.importorskip('geotiffs')
    path = geotiffs.write(tmp_path / 'a.tif', np.full((3, 4, 4), 9, np.uint8))
    import rasterio

    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(path, 'r+') as file:
        file.write_mask(np.array([[0] * 4] + [[255] * 4] * 3, np.uint8))
    assert Path(f'{path}.msk').is_file()
    pixels, gone = read_bands(path)
    assert (pixels == 9).all() and gone[0].all() and not gone[1:].any()


def test_a_training_and_a_prediction_reach_nothing(
    checkpoint: Path, port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    files = rasters(tmp_path / 'found', port)
    photos = write_photos(tmp_path / 'photos')
    for name in ('file', 'address', 'mask.tif', 'mask_away.tif'):
        for end in ('', '.msk'):
            if (source := Path(f'{files[name]}{end}')).is_file():
                source.rename(photos / source.name)
    assert main(command(checkpoint, photos, '--out', tmp_path / 'out')) == 2
    error = capsys.readouterr().err
    assert '4 of 7 files left out' in error and 'remove it' in error and 'virtual raster' in error
    assert len(times(tmp_path / 'out')) == 6
    data = folder_data.write(tmp_path / 'data', 8)
    for file, name in zip(sorted((data / 'images').iterdir()), ('file', 'address'), strict=False):
        file.unlink()
        (photos / f'{name}.tif').rename(file.with_suffix('.tif'))
    monkeypatch.chdir(tmp_path)
    assert main(['train', '--data', str(data), '--model', 'volo_demo', '--work-dir', 'work']) == 2
    error = capsys.readouterr().err
    assert '00.tif' in error and '01.tif' in error and 'unreadable' in error and not Path('work').exists()


@pytest.mark.skipif(not hasattr(os, 'mkfifo'), reason='Windows has no such files')
def test_files_that_claim_too_much_end_no_folder(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    photos = write_photos(tmp_path / 'photos')
    for i, size in enumerate([(100000, 100000), (2**31 - 1, 2**31 - 1), (30000, 30000)]):
        (photos / f'a{i}.png').write_bytes(png(*size))
    for _ in range(2):
        assert main(command(checkpoint, photos, '--out', tmp_path / 'out')) == 2
        assert '3 of 6 files left out' in capsys.readouterr().err
        assert len(times(tmp_path / 'out')) == 6
    data = folder_data.write(tmp_path / 'data', 8)
    (data / 'images/01.png').write_bytes(png(100000, 100000))
    (data / 'masks/02.png').write_bytes(png(100000, 100000, 0))
    (data / 'masks/03.png').unlink()
    (data / 'masks/03.png').symlink_to('/dev/zero')
    monkeypatch.chdir(tmp_path)
    assert main(['train', '--data', str(data), '--model', 'volo_demo', '--work-dir', 'work']) == 2
    error = capsys.readouterr().err
    assert '01.png' in error and '02.png' in error and '03' in error and 'Traceback' not in error


def test_no_decoder_is_asked_for_what_a_file_cannot_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ('decode_png', '_decode', '_by_pillow'):
        monkeypatch.setattr(pictures, name, lambda *given: pytest.fail('it was asked'))
    for mode, read in ((2, read_image), (0, read_label)):
        path = tmp_path / f'{mode}.png'
        path.write_bytes(png(30000, 30000, mode))
        with pytest.raises(UsageError, match='not a readable picture'):
            read(path)


@pytest.mark.skipif(not hasattr(os, 'mkfifo'), reason='Windows has no such files')
@pytest.mark.parametrize('kind', ['pipe', 'device', 'loop'])
def test_pipes_devices_and_links_to_themselves_are_one_sentence(
    kind: str, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    path = tmp_path / 'a.png'
    if kind == 'pipe':
        os.mkfifo(path)
    else:
        path.symlink_to('/dev/zero' if kind == 'device' else path)
    for read in (read_image, read_label, read_raw, read_bands):
        with pytest.raises((UsageError, OSError)):
            read(path)
    assert main(command(checkpoint, path, '--out', tmp_path / 'out')) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    photos = write_photos(tmp_path / 'photos')
    (photos / 'loop').symlink_to(photos)
    path.rename(photos / 'c.png')
    assert main(command(checkpoint, photos, '--out', tmp_path / 'out')) == 0


def test_what_a_panic_of_a_decoder_ends_is_its_file_only(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    class Panic(BaseException):
        pass

    from mmseg_volo.inference import files as run
    from mmseg_volo.io import decoding

    photos = write_photos(tmp_path / 'photos')
    whole = to_rgb

    def panics(path: Path, *given: object) -> np.ndarray:
        if path.name == 'b.png':
            raise Panic('pointer is null')
        return whole(path, *given)

    monkeypatch.setattr(run, 'to_rgb', panics)
    assert main(command(checkpoint, photos, '--out', tmp_path / 'out')) == 2
    assert '1 of 3 files left out' in (error := capsys.readouterr().err) and 'pointer is null' in error
    opened = decoding.open_picture

    def fails(path: Path) -> Image.Image:
        if path.name == '02.png' and path.parent.name == 'images':
            raise Panic('pointer is null')
        return opened(path)

    monkeypatch.setattr(decoding, 'open_picture', fails)
    data = folder_data.write(tmp_path / 'data', 8)
    monkeypatch.chdir(tmp_path)
    assert main(['train', '--data', str(data), '--model', 'volo_demo', '--work-dir', 'work']) == 2
    assert 'images/02.png' in (error := capsys.readouterr().err) and 'pointer is null' in error


def test_the_page_takes_the_larger_of_two_sizes(tmp_path: Path) -> None:
    file = io.BytesIO()
    Image.new('RGB', (1500, 1000)).save(file, 'TIFF', compression='tiff_adobe_deflate')
    path = tmp_path / 'a.tif'
    path.write_bytes(said_twice(file.getvalue(), 10, 10))
    assert {*sizes_of(path)} == {(1500, 1000), (10, 10)}
    with pytest.raises(UsageError, match='has 1500x1000 pixels'):
        open_upload(path, Limits(megapixels=1))


def test_opencv_decodes_nothing_whose_size_nobody_else_reads(tmp_path: Path) -> None:
    """A BMP with a head of 48 bytes, which OpenCV reads and Pillow does not: what it claims would not be known."""
    file = io.BytesIO()
    Image.new('RGB', (4, 4)).save(file, 'BMP')
    content = bytearray(file.getvalue())
    content[14] = 48
    content[54:54] = bytes(8)
    content[10] = 62
    path = tmp_path / 'a.bmp'
    path.write_bytes(content)
    assert not sizes_of(path) and cv2.imread(str(path)) is not None
    with pytest.raises(UsageError, match='not a readable picture'):
        open_upload(path, Limits())


def test_no_postscript_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow hands EPS files to Ghostscript."""
    from PIL import EpsImagePlugin

    monkeypatch.setattr(EpsImagePlugin, 'Ghostscript', lambda *given: pytest.fail('it was run'))
    path = tmp_path / 'a.png'
    Image.new('L', (4, 4)).save(path, 'EPS')
    for read in (read_image, read_label, read_raw):
        with pytest.raises(UsageError):
            read(path)
