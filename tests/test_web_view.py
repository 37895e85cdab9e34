"""What the page of `mmseg-volo demo` shows, and the fence before its server."""

from __future__ import annotations

import asyncio
import json
import re
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from web import white_png, write_checkpoint, write_image

import mmseg_volo
from mmseg_volo.config import load_config
from mmseg_volo.errors import UsageError
from mmseg_volo.web.fence import Fence
from mmseg_volo.web.page import Page, serve
from mmseg_volo.web.view import Found, Limits, areas_table, open_upload, segment, view

PALETTE = [[200, 0, 0], [0, 200, 0], [0, 0, 200]]


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp('weights') / 'demo.pth')


@pytest.fixture(scope='module')
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_image(tmp_path_factory.mktemp('image') / 'scene <b>1.png')


def found(**others: object) -> Found:
    parts = dict(
        name='a.png',
        picture=np.full((2, 3, 3), 100, np.uint8),
        mask=np.array([[0, 0, 0], [1, 1, 2]], np.uint8),
        confidence=np.array([[90, 50, 49], [90, 50, 10]], np.uint8),
        classes=('wall', '<b>sky', 'tree'),
        palette=PALETTE,
    )
    return Found(**{**parts, **others})


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
    ours = segment(model, image, Limits())
    found = mmseg_volo.predict(model, image, maps=['probability'])
    assert np.array_equal(ours.mask, found.mask)
    best = 100 * found.probability.max(0)
    assert np.array_equal(ours.confidence, np.floor(best)) and 10 <= ours.confidence.min() < 100


def test_mmsegs_segmentor_gives_the_same(checkpoint: Path, image: Path) -> None:
    configs = (load_config('volo_demo', {'model.type': name}) for name in ('EncoderDecoder', 'BandedEncoderDecoder'))
    theirs, ours = (segment(mmseg_volo.load(cfg, checkpoint, device='cpu'), image, Limits()) for cfg in configs)
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
        (bytes(1_000_001), r'bad.png has 1.0 MB, at most 1 MB are taken'),
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
    ours = segment(model, tmp_path / 'a.tif', Limits())
    assert np.array_equal(ours.mask, mmseg_volo.predict(model, tmp_path / 'a.tif').mask)
    assert (ours.mask[:, :12] == 255).all() and not ours.confidence[:, :12].any() and ours.confidence[:, 12:].all()
    shown = view(ours, [], 1.0, 0)
    assert (shown.mask == ours.mask).all() and sum(shown.areas.values()) == 32 * 36
    assert np.array_equal(shown.picture[:, :12], ours.picture[:, :12])
    table = areas_table(ours, shown.areas)
    assert '<td>no data</td><td></td><td>384</td>' in table and 'left out' not in table
    shares = [float(share) for share in re.findall(r'<td>([\d.]+) %</td>', table)]
    assert sum(shares) == pytest.approx(100, abs=0.1 * len(shares))
    gone = found(mask=np.full((2, 3), 255, np.uint8))
    assert areas_table(gone, view(gone, [], 1.0, 0).areas).count('<tr') == 2


def test_all_values_of_a_byte_may_be_classes() -> None:
    mask = np.full((2, 3), 255, np.uint8)
    many = found(classes=[f'c{i}' for i in range(256)], palette=[[1, 2, 3]] * 256, mask=mask)
    assert view(many, [], 1.0, 0).areas == {255: 6}


def test_models_of_other_bands_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('mmseg_volo.web.page.require_gradio', lambda: None)
    model = SimpleNamespace(cfg=SimpleNamespace(test_pipeline=[dict(type='LoadBands')]))
    with pytest.raises(UsageError, match='use mmseg-volo predict$'):
        serve(model, 'a', Limits())


def test_limits_are_checked() -> None:
    for wrong in ((0, 1), (1, 0), (1, 179)):
        with pytest.raises(UsageError, match=f'got {wrong[0]} MB and {wrong[1]} million'):
            Limits(*wrong)


def asked(folder: Path, method: str, path: str, body: bytes = b'', **headers: str) -> int:
    """The status of a request through the fence; 200 from the app behind it, which reads the body."""
    statuses, parts = [], [body[:10], body[10:]]

    async def app(scope: dict, receive: object, send: object) -> None:
        message = await receive()
        seen = message['body']
        while message.get('more_body'):
            message = await receive()
            seen += message['body']
        assert seen == body
        await send(dict(type='http.response.start', status=200, headers=[]))

    async def receive() -> dict:
        return dict(type='http.request', body=parts.pop(0), more_body=bool(parts))

    async def send(message: dict) -> None:
        if message['type'] == 'http.response.start':
            statuses.append(message['status'])
            sent = dict(message['headers'])
            assert statuses[0] != 200 or b"default-src 'self'" in sent[b'content-security-policy']

    given = {'host': '127.0.0.1:7860', 'content_length': str(len(body)), **headers}
    scope = dict(type='http', method=method, path=path)
    scope['headers'] = [(k.replace('_', '-').encode(), v.encode()) for k, v in given.items()]
    asyncio.run(Fence(app, folder, 100)(scope, receive, send))
    return statuses[0]


def test_the_fence_lets_the_page_through(tmp_path: Path) -> None:
    for path in ('/', '/config', '/assets/index.js', '/gradio_api/queue/data', f'/gradio_api/file={tmp_path}/a.png'):
        assert asked(tmp_path, 'GET', path) == 200, path
    assert asked(tmp_path, 'GET', '/', host='localhost:7860') == 200
    body = json.dumps(dict(data=[dict(path=f'{tmp_path}/a/b.png', url='x'), [], None]))
    assert asked(tmp_path, 'POST', '/gradio_api/queue/join', body.encode()) == 200
    assert asked(tmp_path, 'POST', '/gradio_api/upload', b'x' * 100) == 200


def test_the_fence_keeps_files_in(tmp_path: Path) -> None:
    (tmp_path / 'inside').mkdir()
    (tmp_path / 'inside/link').symlink_to('/etc')
    folder = tmp_path / 'inside'
    wrong = ['/etc/passwd', f'{folder}/../a', f'{folder}x/a', f'{folder}/link/passwd', 'https://x.org/a', 'a', '\0']
    for path in wrong:
        assert asked(folder, 'GET', f'/gradio_api/file={path}') == 403, path
        for body in (dict(data=[dict(path=path)]), dict(data=[[dict(a=dict(path=path))]])):
            assert asked(folder, 'POST', '/gradio_api/queue/join', json.dumps(body).encode()) == 403, body
    for body in (b'{', b'{"data": [{"path": 3}]}', b'[' * 100000):
        assert asked(folder, 'POST', '/gradio_api/queue/join', body) == 403, body[:20]


def test_the_fence_refuses_the_rest(tmp_path: Path) -> None:
    others = ['/gradio_api/proxy=https://x.org', '/gradio_api/vibe-code', '/monitoring', '/login', '/a', '/assets/../a']
    for path in others:
        assert asked(tmp_path, 'GET', path) == 403, path
    for path in ('/', '/gradio_api/call/x', '/gradio_api/process_recording', '/gradio_api/component_server'):
        assert asked(tmp_path, 'POST', path, b'{}') == 403, path
    assert asked(tmp_path, 'GET', '/', host='evil.example:7860') == 403
    assert asked(tmp_path, 'POST', '/gradio_api/upload', b'x' * 101) == 413
    assert asked(tmp_path, 'POST', '/gradio_api/upload', b'x', content_length='') == 403
    assert asked(tmp_path, 'POST', '/gradio_api/queue/join', b' ' * (1 << 20) + b'{}', content_length='1') == 413


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

    monkeypatch.setattr('mmseg_volo.web.page.segment', failing)
    gradio = SimpleNamespace(DownloadButton=dict)
    found, status, picture, areas, button = Page(SimpleNamespace(test_cfg={}), 'a', tmp_path, Limits()).on_upload(
        gradio, 'a.png', [], 50, 0
    )
    assert found is picture is None and not areas and not button['interactive']
    assert status.startswith('<p class="problem"') and status.endswith(said)
