"""`mmseg-volo demo`: its server, and its page in a real browser."""

from __future__ import annotations

import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers.app_checkpoints import white_png
from helpers.paths import ROOT

import mmseg_volo
from mmseg_volo.datasets.synthetic import scenes
from mmseg_volo_cli import main

CHROMIUM = '/usr/bin/chromium'
FLAGS = '--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking'
FLAGS += ' --disable-component-update --disable-sync'


@dataclass
class Proxy:
    """Listens where programs are told to go for the internet."""

    asked: list[bytes] = field(default_factory=list)

    def __enter__(self) -> Proxy:
        self.socket = socket.create_server(('127.0.0.1', 0))
        threading.Thread(target=self._answer, daemon=True).start()
        return self

    def _answer(self) -> None:
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            with connection:
                self.asked.append(connection.recv(1000))
                connection.sendall(b'HTTP/1.1 502 No\r\n\r\n')

    def __exit__(self, *error: object) -> None:
        self.socket.close()

    @property
    def url(self) -> str:
        return f'http://127.0.0.1:{self.socket.getsockname()[1]}'


@dataclass
class Server:
    """A demo in a process of its own."""

    process: subprocess.Popen
    port: int
    log: Path
    proxy: Proxy
    scratch: Path

    @property
    def runs(self) -> list[str]:
        """A line for each time that the network ran."""
        return [line for line in self.log.read_text().splitlines() if 'segmented in' in line]

    def get(self, path: str, host: str = '') -> tuple[int, bytes]:
        connection = http.client.HTTPConnection('127.0.0.1', self.port, timeout=20)
        connection.request('GET', path, headers={'Host': host or f'127.0.0.1:{self.port}'})
        answer = connection.getresponse()
        return answer.status, answer.read()


@pytest.fixture(scope='module')
def server(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """With an environment that asks gradio for all that must not be."""
    pytest.importorskip('gradio', reason='gradio is not installed')
    folder = tmp_path_factory.mktemp('server')
    with socket.create_server(('127.0.0.1', 0)) as probe:
        port = probe.getsockname()[1]
    with Proxy() as proxy:
        wrong = dict(GRADIO_SHARE='True', GRADIO_SERVER_NAME='0.0.0.0', GRADIO_ALLOWED_PATHS='/')
        wrong |= dict(GRADIO_ANALYTICS_ENABLED='True', GRADIO_MCP_SERVER='True', GRADIO_ROOT_PATH='/elsewhere')
        wrong |= {name: proxy.url for name in ('HTTP_PROXY', 'HTTPS_PROXY', 'ALL_PROXY', 'http_proxy', 'https_proxy')}
        env = {**os.environ, **wrong, 'PYTHONPATH': str(ROOT), 'TMPDIR': str(folder), 'NO_PROXY': '', 'no_proxy': ''}
        command = [sys.executable, '-m', 'mmseg_volo_cli', 'app', 'volo_demo', str(checkpoint), '--device', 'cpu']
        command += ['--port', str(port), '--max-mb', '1', '--max-megapixels', '1']
        with (folder / 'log').open('w') as log:
            process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=env, cwd=folder)
        try:
            deadline = time.monotonic() + 120
            while 'Ctrl-C ends it' not in (said := (folder / 'log').read_text()):
                assert process.poll() is None and time.monotonic() < deadline, said
                time.sleep(0.2)
            yield Server(process, port, folder / 'log', proxy, folder)
        finally:
            process.kill()
            process.wait()


def test_it_listens_on_the_loopback_address_only(server: Server) -> None:
    table = Path('/proc/net/tcp')
    if not table.is_file():
        pytest.skip('this system does not list its sockets in /proc/net')
    lines = [line.split() for path in (table, Path('/proc/net/tcp6')) if path.is_file() for line in path.open()]
    heard = [line[1] for line in lines if line[1].endswith(f':{server.port:04X}') and line[3] == '0A']
    assert heard == [f'0100007F:{server.port:04X}']


def test_the_server_gives_no_file_of_the_machine(server: Server, checkpoint: Path) -> None:
    status, page = server.get('/')
    assert status == 200 and b'demo.pth' in page
    for path in (checkpoint, '/etc/passwd', server.log, ROOT / 'setup.py'):
        for way in ('/gradio_api/file=', '/file=', '/gradio_api/file/', '/static/..', '/assets/../../../../../../..'):
            assert server.get(f'{way}{path}')[0] in (403, 404), (way, path)
    assert server.get('/', host='evil.example')[0] == 403
    assert server.get('/gradio_api/file=http://127.0.0.1:1/a')[0] == 403


@pytest.fixture
def page(server: Server) -> Iterator[object]:
    """A tab of Chromium, which must ask this server only and find nothing wrong."""
    api = pytest.importorskip('playwright.sync_api', reason='playwright is not installed')
    if not Path(CHROMIUM).is_file():
        pytest.skip(f'there is no Chromium at {CHROMIUM}')
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS.split())
        tab = browser.new_page(viewport=dict(width=1280, height=900))
        asked, wrong = [], []
        tab.on('request', lambda request: asked.append(request.url))
        tab.on('console', lambda message: wrong.append(message.text) if message.type == 'error' else None)
        tab.on('pageerror', lambda error: wrong.append(str(error)))
        tab.goto(f'http://127.0.0.1:{server.port}/')
        tab.wait_for_selector('#upload input[type=file]', state='attached')
        yield tab
        browser.close()
    own = (f'http://127.0.0.1:{server.port}/', 'data:', 'blob:')
    assert len(asked) > 10 and not [url for url in asked if not url.startswith(own)]
    assert not wrong and not server.proxy.asked


def areas(tab: object) -> dict[str, int]:
    return {
        row.query_selector('td').inner_text(): int(row.query_selector('td:last-child').inner_text().replace(',', ''))
        for row in tab.query_selector_all('#areas tr:has(td)')
    }


def mask(tab: object, folder: Path) -> np.ndarray:
    with tab.expect_download() as waiting:
        tab.click('#mask')
    assert waiting.value.suggested_filename.endswith('_mask.png')
    waiting.value.save_as(folder / 'mask.png')
    return cv2.imread(str(folder / 'mask.png'), cv2.IMREAD_UNCHANGED)


def test_an_upload_is_segmented_and_sliders_only_redraw(
    server: Server, page, checkpoint: Path, image: Path, tmp_path: Path
) -> None:
    before = len(server.runs)
    page.set_input_files('#upload input[type=file]', image)
    page.wait_for_selector('#areas td')
    assert 'scene' in page.inner_text('#status') and '130x75 pixels' in page.inner_text('#status')
    expected = mmseg_volo.predict(mmseg_volo.load('volo_demo', checkpoint, device='cpu'), image).mask
    counts = np.bincount(expected.ravel(), minlength=len(scenes.CLASSES))
    assert areas(page) == {name: n for name, n in zip(scenes.CLASSES, counts, strict=True) if n}
    assert np.array_equal(mask(page, tmp_path), expected)
    whole = page.query_selector('#overlay img').screenshot()

    name = max(areas(page), key=areas(page).get)
    page.click('#classes input')
    page.click(f'[role=option]:has-text("{name}")')
    page.press('#classes input', 'Escape')
    page.wait_for_selector('#areas tr.left')
    index = scenes.CLASSES.index(name)
    assert areas(page) == {name: counts[index], 'hidden': expected.size - counts[index]}
    chosen = mask(page, tmp_path)
    assert np.array_equal(chosen == index, expected == index) and set(np.unique(chosen)) == {index, 255}

    page.fill('#least input[type=number]', '100')
    page.press('#least input[type=number]', 'Enter')
    page.wait_for_function('document.querySelectorAll("#areas td").length == 3')
    assert areas(page) == {'hidden': expected.size} and (mask(page, tmp_path) == 255).all()
    assert page.query_selector('#overlay img').screenshot() != whole
    assert len(server.runs) == before + 1
    shot = cv2.imdecode(np.frombuffer(page.screenshot(full_page=True), np.uint8), cv2.IMREAD_COLOR)
    assert shot.shape[1] == 1280 and len(np.unique(shot.reshape(-1, 3), axis=0)) > 100


def test_bad_uploads_are_explained_in_the_page(server: Server, page, image: Path, tmp_path: Path) -> None:
    page.set_input_files('#upload input[type=file]', image)
    page.wait_for_selector('#areas td')
    runs = len(server.runs)
    (tmp_path / 'text.jpg').write_text('hello')
    (tmp_path / 'large.png').write_bytes(white_png(2000))
    large = '2000x2000 pixels, the limit is 1 million'
    for name, message in (('text.jpg', 'not a readable picture'), ('large.png', large)):
        page.click('#upload button[aria-label="Clear"], #upload button[aria-label="Remove this file"]')
        page.wait_for_selector('#status:has-text("Drop an image")')
        page.set_input_files('#upload input[type=file]', tmp_path / name)
        page.wait_for_selector('#status .problem')
        assert f'{name}' in (said := page.inner_text('#status')) and message in said
        assert not areas(page) and not page.query_selector('#overlay img')
        assert page.is_disabled('#mask')
    page.click('#upload button[aria-label="Clear"], #upload button[aria-label="Remove this file"]')
    page.wait_for_selector('#status:has-text("Drop an image")')
    (tmp_path / 'heavy.png').write_bytes(bytes(1_100_000))
    page.set_input_files('#upload input[type=file]', tmp_path / 'heavy.png')
    page.wait_for_selector('text=/maximum allowed size/')
    assert len(server.runs) == runs


def test_it_ends_and_leaves_nothing(server: Server) -> None:
    assert [*server.scratch.glob('mmseg_volo_demo_*')]
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(30) == 0
    assert [path.name for path in server.scratch.iterdir()] == ['log'] and not server.proxy.asked
    said = server.log.read_text()
    assert said.splitlines()[-1] == 'ended' and not re.search('warn|error|share|public', said, re.I), said


def test_what_the_demo_cannot_do(
    checkpoint: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for argv, message in (
        (['volo_demo'], 'volo_demo is not a checkpoint'),
        (['a', 'b', 'c.pth'], 'expected CHECKPOINT or CONFIG CHECKPOINT, got a b c.pth'),
        ([str(checkpoint), '--port', '0'], '--port must lie in 1..65535, got 0'),
    ):
        assert main(['app', *argv]) == 2
        assert message in capsys.readouterr().err

    def absent(name: str) -> str:
        raise PackageNotFoundError(name)

    for version, found in ((absent, 'none'), (lambda name: '5.49.1', '5.49.1')):
        monkeypatch.setattr('mmseg_volo.app.page.version', version)
        assert main(['app', str(checkpoint)]) == 2
        assert f"needs gradio 6, found {found}: pip install 'gradio>=6,<7'" in capsys.readouterr().err
