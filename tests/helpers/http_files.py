"""A web server on this machine that does what real ones do: ranges, broken connections, new versions, login pages."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants


@dataclass
class File:
    content: bytes = b''
    etag: str | None = '"first"'
    cuts: list[int] = field(default_factory=list)  # bytes of each next answer after which the connection breaks
    headers: dict[str, str] = field(default_factory=dict)
    status: int = 200
    ranges: bool = True  # False: every answer is the whole file
    heeds_if_range: bool = True
    hold: threading.Event | None = None  # at a cut, silence until this is set
    goes_on: bool = False  # after the silence, with the rest


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.server.requests.append((self.path, self.headers['Range']))
        file = self.server.files.get(self.path, File(b'nothing', status=404))
        wanted = re.fullmatch(r'bytes=(\d+)-', self.headers['Range'] or '')
        same = not file.heeds_if_range or self.headers['If-Range'] == file.etag
        start, status, size = 0, file.status, len(file.content)
        if wanted and file.ranges and same:
            start, status = int(wanted[1]), 206
        self.send_response(status if start < size or not wanted else 416)
        headers = {'Content-Length': str(max(size - start, 0))}
        if status == 206:
            headers['Content-Range'] = f'bytes {start}-{size - 1}/{size}'
        if file.etag:
            headers['ETag'] = file.etag
        for name, value in {**headers, **file.headers}.items():
            if value:
                self.send_header(name, value)
        self.end_headers()
        cut = file.cuts.pop(0) if file.cuts else size
        self.wfile.write(file.content[start : start + cut])
        if file.hold and cut < size:
            self.wfile.flush()
            file.hold.wait(30)
            if file.goes_on:
                self.wfile.write(file.content[start + cut :])

    def log_message(self, format: str, *args: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(('127.0.0.1', 0), Handler)
        self.files: dict[str, File] = {}
        self.requests: list[tuple[str, str | None]] = []  # path, Range
        self.url = f'http://127.0.0.1:{self.server_port}'

    def ranges(self) -> list[str | None]:
        return [asked for _, asked in self.requests]


@contextmanager
def serve() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs=dict(poll_interval=0.01))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def empty_caches(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """New caches below `folder`, no switch set, no proxy in the way of this machine; returns our cache."""
    for name in ('MMSEG_VOLO_OFFLINE', 'MMSEG_VOLO_MIRROR'):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv('no_proxy', '127.0.0.1')
    monkeypatch.setenv('TORCH_HOME', str(folder / 'torch'))
    monkeypatch.setattr(torch.hub, '_hub_dir', None)
    monkeypatch.setattr(constants, 'HF_HUB_CACHE', str(folder / 'hub'))
    monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', False)
    return folder / 'torch/hub/checkpoints/mmseg_volo'
