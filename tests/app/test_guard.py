"""The fence before the page's server, and the folder of what is uploaded."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest

from mmseg_volo.app.guard import AT_ONCE, READING, GuardMiddleware
from mmseg_volo.app.upload_dir import LOCK, sweep
from mmseg_volo.utils.locks import Lock


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
    asyncio.run(GuardMiddleware(app, folder, 100, 250)(scope, receive, send))
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
    wrong.append(f'{folder}/{LOCK}')
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
    assert asked(tmp_path, 'POST', '/gradio_api/upload', b'x', content_length='') == 411
    assert asked(tmp_path, 'POST', '/gradio_api/queue/join', b' ' * (1 << 20) + b'{}', content_length='1') == 413


def test_other_pages_may_not_ask(tmp_path: Path) -> None:
    upload = ('POST', '/gradio_api/upload', b'x')
    for origin in ('https://evil.example', 'http://localhost:8888', 'http://127.0.0.1:7861', 'null', 'file://'):
        assert asked(tmp_path, *upload, origin=origin) == 403, origin
        assert asked(tmp_path, 'GET', '/config', origin=origin) == 403, origin
    for site in ('cross-site', 'same-site'):
        assert asked(tmp_path, *upload, sec_fetch_site=site) == 403, site
        assert asked(tmp_path, 'GET', f'/gradio_api/file={tmp_path}/a.png', sec_fetch_site=site) == 403, site
        assert asked(tmp_path, 'GET', '/', sec_fetch_site=site, sec_fetch_mode='no-cors') == 403, site
        assert asked(tmp_path, 'GET', '/', sec_fetch_site=site, sec_fetch_mode='navigate') == 200, site  # a link
    for host in ('127.0.0.1:7860', 'localhost:9000'):  # the latter by a tunnel
        assert asked(tmp_path, *upload, host=host, origin=f'http://{host}', sec_fetch_site='same-origin') == 200


def test_a_body_holds_what_it_says(tmp_path: Path) -> None:
    upload = ('POST', '/gradio_api/upload')
    assert asked(tmp_path, *upload, b'x' * 90, transfer_encoding='chunked') == 411
    assert asked(tmp_path, 'POST', '/gradio_api/queue/join', b'{}', transfer_encoding='chunked') == 411
    for length in ('-1', '1e3', '0x10'):
        assert asked(tmp_path, *upload, b'x', content_length=length) == 411, length
    with pytest.raises(KeyError, match='body'):  # the app behind is told that the browser has gone
        asked(tmp_path, *upload, b'x' * 90, content_length='5')


def test_uploads_make_room_for_each_other(tmp_path: Path) -> None:
    for i in range(4):
        (tmp_path / f'{i}').mkdir()
        (tmp_path / f'{i}/a.png').write_bytes(bytes(60))
        os.utime(tmp_path / f'{i}/a.png', (i, i))
    assert asked(tmp_path, 'POST', '/gradio_api/upload', b'x' * 90) == 200
    assert sorted(path.name for path in tmp_path.iterdir()) == ['2', '3']  # 250 bytes may lie there, 100 are to come


def test_so_many_uploads_at_once(tmp_path: Path) -> None:
    fence = GuardMiddleware(None, tmp_path, 100, 250)
    fence.uploads = AT_ONCE
    statuses = []

    async def send(message: dict) -> None:
        statuses.append(message.get('status'))

    headers = [(b'host', b'localhost'), (b'content-length', b'5')]
    scope = dict(type='http', method='POST', path='/gradio_api/upload', headers=headers)
    asyncio.run(fence(scope, None, send))
    assert statuses[0] == 503 and fence.uploads == AT_ONCE


def test_slow_bodies_do_not_keep_others_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('mmseg_volo.app.guard.SLOW_BODY_SECONDS', 0.05)
    statuses = []

    async def app(scope: dict, receive: object, send: object) -> None:
        statuses.append((await receive())['type'])

    async def never() -> dict:
        await asyncio.sleep(60)
        raise AssertionError

    async def send(message: dict) -> None:
        statuses.append(message.get('status'))

    fence = GuardMiddleware(app, tmp_path, 100, 250)
    headers = [(b'host', b'localhost'), (b'content-length', b'5')]
    for path in ('/gradio_api/upload', '/gradio_api/queue/join'):
        asyncio.run(fence(dict(type='http', method='POST', path=path, headers=headers), never, send))
    assert statuses[:2] == ['http.disconnect', 413] and fence.uploads == fence.reading == 0
    fence.reading = READING
    asyncio.run(fence(dict(type='http', method='POST', path='/gradio_api/queue/join', headers=headers), never, send))
    assert 413 in statuses[2:]


def test_what_killed_pages_left_is_swept(tmp_path: Path) -> None:
    folders = [tmp_path / f'mmseg_volo_demo_{name}' for name in ('killed', 'running', 'starting')]
    for folder in (*folders, tmp_path / 'mine'):
        (folder / 'a').mkdir(parents=True)
        (folder / 'a/upload.png').write_bytes(b'x')
    (tmp_path / 'mmseg_volo_demo_link').symlink_to(tmp_path / 'mine')
    with Lock(folders[1] / LOCK) as lock:
        assert lock.take()
        for folder in (*folders[:2], tmp_path / 'mine'):
            os.utime(folder, (0, 0))
        sweep(tmp_path)
    assert not folders[0].exists() and folders[2].exists()
    assert folders[1].joinpath('a/upload.png').exists() and (tmp_path / 'mine/a/upload.png').exists()
