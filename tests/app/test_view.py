"""What the page of `mmseg-volo demo` shows."""

from __future__ import annotations

import re
import threading
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers.app_checkpoints import white_png, write_image

import mmseg_volo
from mmseg_volo.app.page import Page, serve
from mmseg_volo.app.view import Limits, Segmentation, areas_table, open_upload, segment, view
from mmseg_volo.config import load_config
from mmseg_volo.errors import UsageError

PALETTE = [[200, 0, 0], [0, 200, 0], [0, 0, 200]]


def found(**others: object) -> Segmentation:
    parts = dict(
        name='a.png',
        picture=np.full((2, 3, 3), 100, np.uint8),
        mask=np.array([[0, 0, 0], [1, 1, 2]], np.uint8),
        confidence=np.array([[90, 50, 49], [90, 50, 10]], np.uint8),
        classes=('wall', '<b>sky', 'tree'),
        palette=PALETTE,
    )
    return Segmentation(**{**parts, **others})


def test_a_view_of_everything() -> None:
    shown = view(found(), [], 1.0, 0)
    assert np.array_equal(shown.picture, np.array(PALETTE, np.uint8)[found().mask])
    assert np.array_equal(shown.mask, found().mask) and shown.mask.dtype == np.uint8
    assert shown.areas == {0: 3, 1: 2, 2: 1} and [*shown.areas] == [0, 1, 2]
    assert (view(found(), [], 0.0, 0).picture == 100).all()
    assert view(found(), [], 0.5, 0).picture[0, 0].tolist() == [150, 50, 50]


def test_pixels_below_the_confidence_are_left_out() -> None:
    shown = view(found(), [], 1.0, 50)
    assert shown.mask.tolist() == [[0, 0, 255], [1, 1, 255]] and shown.areas == {0: 2, 1: 2}
    assert (shown.picture[:, 2] == 100).all() and shown.picture[0, 0].tolist() == PALETTE[0]
    assert view(found(), [], 1.0, 100).areas == {}


def test_other_classes_are_left_out() -> None:
    shown = view(found(), ['<b>sky'], 1.0, 60)
    assert shown.mask.tolist() == [[255] * 3, [1, 255, 255]] and shown.areas == {1: 1}
    table = areas_table(found(), shown.areas)
    assert '&lt;b&gt;sky' in table and '<b>' not in table
    assert re.findall(r'<td>([\d.]+ %)</td><td>(\d+)</td>', table) == [('16.7 %', '1'), ('83.3 %', '5')]


def test_more_classes_than_a_byte_has() -> None:
    many = found(classes=[f'c{i}' for i in range(300)], palette=[[1, 2, 3]] * 300, mask=np.full((2, 3), 299, np.uint16))
    shown = view(many, [], 1.0, 50)
    assert shown.mask.dtype == np.uint16 and shown.mask[0].tolist() == [299, 299, 65535] and shown.areas == {299: 4}


def test_large_pictures_are_shown_smaller() -> None:
    mask = np.zeros((40, 60), np.uint8)
    mask[:20] = 2
    shown = view(found(picture=np.zeros((4, 6, 3), np.uint8), mask=mask, confidence=mask + 50), [], 1.0, 0)
    assert shown.picture[0, 0].tolist() == PALETTE[2] and shown.picture[-1, -1].tolist() == PALETTE[0]
    assert shown.mask.shape == (40, 60) and shown.areas == {0: 1200, 2: 1200}


def test_the_network_gives_masks_and_confidence(checkpoint: Path, image: Path) -> None:
    model = mmseg_volo.load('volo_demo', checkpoint, device='cpu')
    ours = segment(model, image, open_upload(image, Limits()))
    found = mmseg_volo.predict(model, image, maps=['probability'])
    assert np.array_equal(ours.mask, found.mask)
    best = 100 * found.probability.max(0)
    assert np.array_equal(ours.confidence, np.floor(best)) and 10 <= ours.confidence.min() < 100


def test_mmsegs_segmentor_gives_the_same(checkpoint: Path, image: Path) -> None:
    configs = (load_config('volo_demo', {'model.type': name}) for name in ('EncoderDecoder', 'StreamingEncoderDecoder'))
    pixels = open_upload(image, Limits())
    theirs, ours = (segment(mmseg_volo.load(cfg, checkpoint, device='cpu'), image, pixels) for cfg in configs)
    assert (theirs.mask == ours.mask).mean() > 0.999  # ties may fall either way
    assert np.abs(theirs.confidence.astype(int) - ours.confidence).max() <= 1  # per cent


@pytest.mark.parametrize(
    ('content', 'expected'),
    [
        (b'hello', r'bad.png \(\d+ bytes\) is not a readable picture'),
        (b'', r'bad.png \(\d+ bytes\) is not a readable picture'),
        (b'\x89PNG\r\n\x1a\n' + bytes(50), r'bad.png \(\d+ bytes\) is not a readable picture'),
        (b'<!DOCTYPE html><p>', 'bad.png is a web page'),
        (b'version https://git-lfs.github.com/spec/v1', 'bad.png is a pointer of Git LFS'),
        (b'\0\0\0\x18ftypheic' + bytes(50), 'bad.png is a HEIC file'),
        (b'<VRTDataset rasterXSize="2000" rasterYSize="2000"/>', 'bad.png is a virtual raster'),
        (b'P7\nHEIGHT 2000\nWIDTH 1000\nDEPTH 3\nMAXVAL 255\nENDHDR\n', 'bad.png has 1000x2000 pixels'),
        (b'PF\n1000 2000\n-1\n', 'bad.png has 1000x2000 pixels'),
        (b'#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 2000 +X 1000\n', 'bad.png has 1000x2000 pixels'),
        (bytes(1_000_001), r'bad.png has 1.0 MB, the limit is 1 MB'),
    ],
)
def test_bad_uploads_are_explained(tmp_path: Path, content: bytes, expected: str) -> None:
    (tmp_path / 'bad.png').write_bytes(content)
    with pytest.raises(UsageError, match=f'^{expected}'):
        open_upload(tmp_path / 'bad.png', Limits(1, 1))


def test_a_cut_upload_is_explained_without_its_folder(tmp_path: Path, image: Path) -> None:
    (tmp_path / 'cut.png').write_bytes(image.read_bytes()[:-200])
    with pytest.raises(UsageError, match=r'^cut.png \(\d+ bytes\) is not a readable picture'):
        open_upload(tmp_path / 'cut.png', Limits())


@pytest.mark.parametrize('side', [1001, 10000, 20000])
def test_too_many_pixels_are_not_decoded(tmp_path: Path, side: int) -> None:
    path = tmp_path / 'large.png'
    path.write_bytes(white_png(side))
    warnings.simplefilter('error')  # Pillow warns of some sizes
    with pytest.raises(UsageError, match=r'^large.png has (1001x1001|more than 1 million) pixels'):
        open_upload(path, Limits(1, 1))


@pytest.mark.parametrize(
    'how',
    [dict(dtype='int16'), dict(dtype='int32'), dict(dtype='float32'), dict(dtype='uint16'), dict(count=4)],
    ids=str,
)
def test_tiffs_that_pillow_does_not_know(how: dict, tmp_path: Path) -> None:
    rasterio = pytest.importorskip('rasterio', reason='rasterio reads such files: pip install rasterio')
    how = dict(driver='GTiff', width=30, height=20, photometric='RGB') | dict(count=3, dtype='uint8') | how
    with rasterio.open(tmp_path / 'a.tif', 'w', **how) as file:
        file.write((np.arange(how['count'] * 600).reshape(-1, 20, 30) % 2).astype(how['dtype']))
    try:
        assert open_upload(tmp_path / 'a.tif', Limits()).shape == (20, 30, 3)
    except UsageError as error:  # the rules for the values of integers ask for a range
        assert str(error).startswith('a.tif') and 'readable' not in str(error) and str(tmp_path) not in str(error)
        assert how['dtype'] in ('int16', 'int32', 'uint16')
    with rasterio.open(tmp_path / 'large.tif', 'w', **how | dict(width=1001, height=1001, SPARSE_OK=True)):
        pass
    with pytest.raises(UsageError, match='^large.tif has 1001x1001 pixels'):
        open_upload(tmp_path / 'large.tif', Limits(20, 1))


def test_what_has_no_data_is_in_no_area(checkpoint: Path, tmp_path: Path) -> None:
    rasterio = pytest.importorskip('rasterio', reason='rasterio reads georeferences: pip install rasterio')
    model = mmseg_volo.load('volo_demo', checkpoint, device='cpu')
    where = dict(crs='EPSG:32633', transform=rasterio.Affine(1, 0, 5e5, 0, -1, 5e6), nodata=0)
    pixels = np.full((3, 32, 48), 90, np.uint8)
    pixels[:, :, :12] = 0
    with rasterio.open(
        tmp_path / 'a.tif', 'w', driver='GTiff', width=48, height=32, count=3, dtype='uint8', **where
    ) as f:
        f.write(pixels)
    warnings.simplefilter('error', RuntimeWarning)
    ours = segment(model, tmp_path / 'a.tif', open_upload(tmp_path / 'a.tif', Limits()))
    assert np.array_equal(ours.mask, mmseg_volo.predict(model, tmp_path / 'a.tif').mask)
    assert (ours.mask[:, :12] == 255).all() and not ours.confidence[:, :12].any() and ours.confidence[:, 12:].all()
    shown = view(ours, [], 1.0, 0)
    assert (shown.mask == ours.mask).all() and sum(shown.areas.values()) == 32 * 36
    assert np.array_equal(shown.picture[:, :12], ours.picture[:, :12])
    table = areas_table(ours, shown.areas)
    assert '<td>no data</td><td></td><td>384</td>' in table and 'hidden' not in table
    shares = [float(share) for share in re.findall(r'<td>([\d.]+) %</td>', table)]
    assert sum(shares) == pytest.approx(100, abs=0.1 * len(shares))
    gone = found(mask=np.full((2, 3), 255, np.uint8))
    assert areas_table(gone, view(gone, [], 1.0, 0).areas).count('<tr') == 2


def test_all_values_of_a_byte_may_be_classes() -> None:
    mask = np.full((2, 3), 255, np.uint8)
    many = found(classes=[f'c{i}' for i in range(256)], palette=[[1, 2, 3]] * 256, mask=mask)
    assert view(many, [], 1.0, 0).areas == {255: 6}


def test_models_of_other_bands_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('mmseg_volo.app.page.require_gradio', lambda: None)
    model = SimpleNamespace(cfg=SimpleNamespace(test_pipeline=[dict(type='LoadMultiBandImage')]))
    with pytest.raises(UsageError, match='use mmseg-volo predict$'):
        serve(model, 'a', Limits())


def test_limits_are_checked() -> None:
    for wrong in ((0, 1), (1, 0), (1, 179)):
        with pytest.raises(UsageError, match=f'got {wrong[0]} MB and {wrong[1]} million'):
            Limits(*wrong)


def test_a_large_photo_is_seen_through_windows(checkpoint: Path, tmp_path: Path, monkeypatch) -> None:
    """A network that sees images whole takes a time that grows with the square of their pixels."""
    model = mmseg_volo.load('volo_demo', checkpoint, device='cpu')
    monkeypatch.setattr('mmseg_volo.app.view.AT_ONCE', 64 * 64)
    path = write_image(tmp_path / 'a.png')
    ours = segment(model, path, image := open_upload(path, Limits()))
    side = min(model.cfg.model.data_preprocessor.size)
    assert image.shape[0] * image.shape[1] > 64 * 64 and ours.windows == side
    assert np.array_equal(ours.mask, mmseg_volo.predict(model, path, windows=side).mask)


def test_a_small_image_does_not_wait_for_a_large_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr('mmseg_volo.app.page.open_upload', lambda path, limits: np.zeros((*path, 3), np.uint8))
    monkeypatch.setattr('mmseg_volo.app.page.segment', lambda model, path, image: found(name='a.png'))
    page = Page(SimpleNamespace(test_cfg={}), 'a', tmp_path, Limits())
    gradio = SimpleNamespace(DownloadButton=dict)
    with page.lanes[True]:  # a large one is under way
        assert page.on_upload(gradio, (10, 10), [], 50, 0)[0] is not None
        waiting = threading.Thread(target=page.on_upload, args=(gradio, (2000, 2000), [], 50, 0))
        waiting.start()
        waiting.join(0.2)
        assert waiting.is_alive()
    waiting.join(10)
    assert not waiting.is_alive()


@pytest.mark.parametrize(
    ('error', 'said'),
    [
        (torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 9 GiB'), 'segmented: CUDA out of memory</p>'),
        (FileNotFoundError(2, 'No such file', '/secret/a.png'), 'segmented: No such file</p>'),
        (UsageError('<a> is no picture'), '>&lt;a&gt; is no picture</p>'),
    ],
)
def test_what_goes_wrong_is_said_in_the_page(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: Exception, said: str
) -> None:
    def failing(*args: object) -> None:
        raise error

    monkeypatch.setattr('mmseg_volo.app.page.open_upload', failing)
    gradio = SimpleNamespace(DownloadButton=dict)
    found, status, picture, areas, button = Page(SimpleNamespace(test_cfg={}), 'a', tmp_path, Limits()).on_upload(
        gradio, 'a.png', [], 50, 0
    )
    assert found is picture is None and not areas and not button['interactive']
    assert status.startswith('<p class="problem"') and status.endswith(said)
