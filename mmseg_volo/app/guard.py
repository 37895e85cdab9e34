"""Restrict which requests reach the page's server, and what the page may load, independently of gradio."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from pathlib import Path
from typing import Any

from mmseg_volo.app.upload_dir import LOCK, make_room

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

HOSTS = ('127.0.0.1', 'localhost')  # another name is DNS rebinding: a site's name that resolves to this machine
API = '/gradio_api'
# what the page of gradio 6 requests; all else, such as its proxy, code editor or recorder, is refused
PLAIN_PATHS: tuple[str, ...] = ('/', '/config', '/theme.css', '/favicon.ico', '/manifest.json', '/robots.txt')
PLAIN_PATHS += tuple(f'{API}/{name}' for name in ('startup-events', 'app_id', 'info', 'queue/data', 'upload_progress'))
BELOW = ('/assets/', '/static/', '/svelte/', f'{API}/heartbeat/')
POSTED = tuple(f'{API}/{name}' for name in ('queue/join', 'cancel', 'reset'))
UPLOAD, FILE = f'{API}/upload', f'{API}/file='
JSON_BYTES = 1 << 20
AT_ONCE = 4  # uploads
READING = 32  # other bodies that are read at once
SLOW_BODY_SECONDS = 60.0  # time limit of a request's body
# gradio runs inline scripts, and shows images and downloads that it generates
POLICY = "default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'; frame-ancestors 'self'; form-action 'self'"


class GuardMiddleware:
    """Pass only the requests of the page, made to this machine's own names, and files of one folder (ASGI middleware).

    Args:
        app: the application to protect.
        folder: the only folder whose files may be read through the server.
        upload_bytes: largest body of an upload.
        folder_bytes: largest size of the folder; the oldest files are removed before an upload.
    """

    def __init__(self, app: App, folder: Path, upload_bytes: int, folder_bytes: int):
        self.app = app
        self.folder = folder.resolve()
        self.upload_bytes = upload_bytes
        self.folder_bytes = folder_bytes
        self.uploads = self.reading = 0  # in progress

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope['type'] == 'lifespan':
            return await self.app(scope, receive, send)
        if scope['type'] != 'http':
            return await send(dict(type='websocket.close', code=1008))
        if reason := self._reason(scope):
            return await _refuse(send, 403, reason)
        limit = self.upload_bytes if scope['path'] == UPLOAD else JSON_BYTES
        length = _header(scope, b'content-length') or ('' if scope['method'] == 'POST' else '0')
        if _header(scope, b'transfer-encoding') or not length.isdecimal():
            return await _refuse(send, 411, 'the body has no Content-Length')
        if int(length) > limit:
            return await _refuse(send, 413, f'the body is larger than {limit / 1e6:.0f} MB')
        receive = _at_most(int(length), receive)
        if scope['path'] in POSTED:
            body = await self._body(receive)
            if body is None:
                return await _refuse(
                    send, 413, 'the body is longer than its Content-Length, too slow, or one of too many at once'
                )
            if not self._names_own_files(body):
                return await _refuse(send, 403, 'the request names a file that was not uploaded here')
            receive = _again(body, receive)
        if scope['path'] == UPLOAD:
            return await self._upload(scope, receive, send)
        await self.app(scope, receive, _with_policy(send))

    async def _body(self, receive: Receive) -> bytes | None:
        """Read a whole body; None if it does not arrive, or too many are being read."""
        if self.reading >= READING:
            return None
        self.reading += 1
        try:
            body, more = b'', True
            while more:
                message = await receive()
                if message['type'] == 'http.disconnect':
                    return None
                body += message.get('body', b'')
                more = message.get('more_body', False)
            return body
        finally:
            self.reading -= 1

    async def _upload(self, scope: Message, receive: Receive, send: Send) -> None:
        if self.uploads >= AT_ONCE:
            return await _refuse(send, 503, f'{AT_ONCE} uploads are in progress: try again when they have finished')
        self.uploads += 1
        try:
            make_room(self.folder, self.folder_bytes - self.uploads * self.upload_bytes)
            await self.app(scope, receive, _with_policy(send))
        finally:
            self.uploads -= 1

    def _reason(self, scope: Message) -> str:
        """Return why a request is refused, or ''."""
        host = re.sub(r':\d+$', '', _header(scope, b'host')).lower()
        if host not in HOSTS:
            return f'this page is served at {" and ".join(HOSTS)} only'
        if _is_foreign(scope):
            return 'the request comes from another page'
        path, reads = scope['path'].removesuffix('/') or '/', scope['method'] in ('GET', 'HEAD')
        if '..' in path.split('/'):
            return 'no such page'
        if reads and path.startswith(FILE):
            return '' if self._own(path.removeprefix(FILE)) else 'not a file of this page'
        if reads and (path in PLAIN_PATHS or path.startswith(BELOW)):
            return ''
        return '' if scope['method'] == 'POST' and path in (*POSTED, UPLOAD) else 'no such page'

    def _own(self, path: str) -> bool:
        return '\0' not in path and Path(path).name != LOCK and Path(path).resolve().is_relative_to(self.folder)

    def _names_own_files(self, body: bytes) -> bool:
        try:
            return all(isinstance(path, str) and self._own(path) for path in _paths(json.loads(body or b'{}')))
        except (ValueError, RecursionError):
            return False


def _paths(value: Any) -> Iterator[Any]:
    """Yield every value in a request that gradio would treat as the path of a file."""
    if isinstance(value, dict):
        if 'path' in value:
            yield value['path']
        for item in value.values():
            yield from _paths(item)
    elif isinstance(value, list):
        for item in value:
            yield from _paths(item)


def _is_foreign(scope: Message) -> bool:
    """Return whether another page makes the request, also one of this machine on another port."""
    if origin := _header(scope, b'origin'):
        return origin.lower() != f'http://{_header(scope, b"host")}'.lower()
    follows_link = _header(scope, b'sec-fetch-mode') == 'navigate' and scope['path'] == '/'
    return _header(scope, b'sec-fetch-site') in ('cross-site', 'same-site') and not follows_link


def _header(scope: Message, name: bytes) -> str:
    return next((value.decode('latin-1') for key, value in scope['headers'] if key == name), '')


def _at_most(length: int, receive: Receive) -> Receive:
    """Disconnect if a body is longer than `length` bytes, or takes longer than SLOW_BODY_SECONDS."""
    left, more, end = length, True, time.monotonic() + SLOW_BODY_SECONDS

    async def counted() -> Message:
        nonlocal left, more
        if not more:
            return await receive()
        try:
            message = await asyncio.wait_for(receive(), end - time.monotonic())
        except TimeoutError:
            return dict(type='http.disconnect')
        left -= len(message.get('body', b''))
        more = message.get('more_body', False)
        return message if left >= 0 else dict(type='http.disconnect')

    return counted


def _again(body: bytes, receive: Receive) -> Receive:
    """Return a body that was read already, so that it can be read again."""
    waiting = [dict(type='http.request', body=body, more_body=False)]

    async def first() -> Message:
        return waiting.pop() if waiting else await receive()

    return first


def _with_policy(send: Send) -> Send:
    """Add the page's security headers to a response."""

    async def sending(message: Message) -> None:
        if message['type'] == 'http.response.start':
            own = [(b'content-security-policy', POLICY.encode()), (b'referrer-policy', b'no-referrer')]
            message['headers'] = [*message.get('headers', []), *own]
        await send(message)

    return sending


async def _refuse(send: Send, status: int, reason: str) -> None:
    headers = [(b'content-type', b'text/plain; charset=utf-8')]
    await send(dict(type='http.response.start', status=status, headers=headers))
    await send(dict(type='http.response.body', body=reason.encode()))
