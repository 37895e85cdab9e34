"""Downloads from a server that misbehaves: whatever happens, a file is whole and right under its name, or not there."""

from __future__ import annotations

import errno
import hashlib
import multiprocessing
import re
import shutil
import threading
import time
from collections import namedtuple
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from helpers.http_files import File, Server, empty_caches, serve
from huggingface_hub import constants

from mmseg_volo.errors import UsageError
from mmseg_volo.io import http as transfer
from mmseg_volo.io.download import cached_path, fetch, find_cached
from mmseg_volo.io.weights import read_state_dict

CONTENT = bytes(range(1, 251)) * 20
RELEASE = 'https://github.com/sail-sg/volo/releases/download/volo_1/d1_224_84.2.pth.tar'
ON_HUB = 'https://huggingface.co/sail/dl/resolve/main/identityformer/identityformer_s12.pth'
fork = multiprocessing.get_context('fork')  # quicker than importing everything anew


@pytest.fixture
def server() -> Iterator[Server]:
    with serve() as server:
        yield server


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty caches, no patience."""
    monkeypatch.setattr(transfer, 'WAIT', 0.01)
    return empty_caches(tmp_path, monkeypatch)


def refused(url: str, *matches: str) -> str:
    """The one sentence that `fetch` refuses with; nothing stands under the file's name then."""
    with pytest.raises(UsageError) as error:
        fetch(url)
    said = str(error.value)
    assert len(said.splitlines()) == 1
    for match in matches:
        assert re.search(match, said), said
    assert not cached_path(url).exists()
    return said


def test_fetched_once_and_kept_under_the_whole_address(server: Server, cache: Path) -> None:
    paths = ['/a/weights.pth', '/b/weights.pth', '/b/weights.pth?version=2', '/b/weights.pth?version=3']
    for i, path in enumerate(paths):
        server.files[path] = File(CONTENT + bytes([i]))
        for _ in range(2):
            assert fetch(server.url + path).read_bytes() == CONTENT + bytes([i])
    assert [path for path, _ in server.requests] == paths
    assert cached_path(server.url + paths[0]) == cache / f'127.0.0.1:{server.server_port}/a/weights.pth'
    assert not list(cache.rglob('*.part*'))


def test_an_address_is_a_source_of_weights(server: Server, tmp_path: Path) -> None:
    torch.save({'state_dict': {'module.w': torch.arange(3)}}, tmp_path / 'x')
    server.files['/w.pth.tar'] = File((tmp_path / 'x').read_bytes())
    assert torch.equal(read_state_dict(server.url + '/w.pth.tar')['w'], torch.arange(3))
    damaged = cached_path(server.url + '/w.pth.tar')
    damaged.write_bytes(b'PK\x03\x04 cut short')
    with pytest.raises(UsageError, match=rf'not a readable.*; remove {damaged} to fetch .*/w.pth.tar again'):
        read_state_dict(server.url + '/w.pth.tar')


def test_a_broken_connection_is_taken_up(server: Server, capsys: pytest.CaptureFixture) -> None:
    server.files['/w.pth'] = File(CONTENT, cuts=[1000, 500])
    assert fetch(server.url + '/w.pth').read_bytes() == CONTENT
    assert server.ranges() == [None, 'bytes=1000-', 'bytes=1500-']
    assert re.search(r'w\.pth: 4\.88k/4\.88k, .*B/s', capsys.readouterr().err)


def test_the_next_run_goes_on(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    url, file = server.url + '/w.pth', File(CONTENT, cuts=[1000, 0, 0, 0])
    server.files['/w.pth'] = file
    refused(url, r'ended after 1000 of 5000 bytes; what has come is kept', 'fetch it by hand and save it as')
    assert fetch(url).read_bytes() == CONTENT
    assert server.ranges() == [None] + 4 * ['bytes=1000-']


def test_a_killed_run_is_taken_up(server: Server) -> None:
    url, hold = server.url + '/w.pth', threading.Event()
    server.files['/w.pth'] = File(CONTENT, cuts=[1000], hold=hold)
    process = fork.Process(target=fetch, args=(url,))
    process.start()
    part, deadline = cached_path(url).with_name('w.pth.part'), time.monotonic() + 20
    while not (part.is_file() and part.stat().st_size == 1000) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.join()
    hold.set()
    assert fetch(url).read_bytes() == CONTENT
    assert server.ranges() == [None, 'bytes=1000-']


@pytest.mark.parametrize('heeds', [True, False])
@pytest.mark.parametrize('content', [CONTENT[::-1], CONTENT[:2500], CONTENT[:1000], CONTENT[:10]])
def test_a_changed_file_begins_anew(server: Server, heeds: bool, content: bytes) -> None:
    url = server.url + '/w.pth'
    server.files['/w.pth'] = File(CONTENT, cuts=[1000, 0, 0, 0])
    refused(url)
    server.files['/w.pth'] = File(content, '"second"', heeds_if_range=heeds)
    assert fetch(url).read_bytes() == content


UNABLE = {
    'to name a version': File(CONTENT, None, [1000]),
    'to send a part': File(CONTENT, cuts=[1000], ranges=False),
    'to say the size': File(CONTENT, headers={'Content-Length': ''}),
}


@pytest.mark.parametrize('file', UNABLE.values(), ids=UNABLE)
def test_servers_that_cannot(server: Server, file: File) -> None:
    server.files['/w.pth'] = file
    assert fetch(server.url + '/w.pth').read_bytes() == CONTENT


REFUSALS = {
    'there is none': (File(status=404), r'HTTP 404 .*no such file'),
    'forbidden': (File(status=403), 'HTTP 403'),
    'overloaded': (File(status=503), 'HTTP 503'),
    'truncated': (File(CONTENT, headers={'Content-Length': '6000'}), 'the server is shorter than announced'),
    'login': (File(b'<p>Sign in</p>', headers={'Content-Type': 'text/html; charset=utf-8'}), 'a web page came'),
    'page as a file': (File(b'\n<!DOCTYPE html><title>Blocked</title>'), 'a web page came'),
    'empty': (File(), 'an empty file came'),
}


@pytest.mark.parametrize('case', REFUSALS)
def test_refusals_are_one_sentence(server: Server, case: str) -> None:
    server.files['/w.pth'], match = REFUSALS[case]
    refused(server.url + '/w.pth', match, f'{server.url}/w.pth', str(cached_path(server.url + '/w.pth')))


def test_a_blocked_network_says_what_to_put_where(monkeypatch: pytest.MonkeyPatch) -> None:
    with serve() as gone:
        url = gone.url + '/w.pth'
    said = refused(url, 'refused', url, 'MMSEG_VOLO_MIRROR')
    place = Path(re.search(r'save it as (\S+),', said)[1])
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(CONTENT)
    assert fetch(url) == place
    monkeypatch.setenv('MMSEG_VOLO_OFFLINE', '1')
    assert fetch(url) == place


@pytest.mark.parametrize('switch', ['MMSEG_VOLO_OFFLINE', 'HF_HUB_OFFLINE'])
def test_offline_means_no_request(server: Server, switch: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, 'ENDPOINT', server.url)
    if switch == 'HF_HUB_OFFLINE':  # the hub reads it when it is imported
        monkeypatch.setattr(constants, switch, True)
    else:
        monkeypatch.setenv(switch, '1')
        refused(server.url + '/w.pth', f'{switch} is set')
    refused(ON_HUB, f'{switch} is set')
    with pytest.raises(UsageError, match=rf'timm/volo_d1_384.sail_in1k/resolve/main/model.safetensors.*{switch}'):
        read_state_dict('timm://volo_d1_384.sail_in1k')
    assert not server.requests


def test_a_mirror_is_a_prefix(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('MMSEG_VOLO_MIRROR', server.url + '/proxy/')
    for url in (RELEASE, ON_HUB):
        server.files[f'/proxy/{url}'] = File(CONTENT)
        assert fetch(url) == cached_path(url)
    refused(RELEASE + '.gz', f'at {server.url}/proxy/https://github.com/.*HTTP 404')
    monkeypatch.setenv('MMSEG_VOLO_MIRROR', 'http://example.org')
    refused(RELEASE + '.gz', 'got http://example.org')


def test_a_mirror_is_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('MMSEG_VOLO_MIRROR', str(tmp_path))
    place = tmp_path / RELEASE.removeprefix('https://')
    refused(RELEASE, f'MMSEG_VOLO_MIRROR={tmp_path} lacks {RELEASE}.*put it there as {place}')
    place.parent.mkdir(parents=True)
    place.write_bytes(CONTENT)
    assert fetch(RELEASE) == place


def test_a_hash_in_the_name_is_held_to(server: Server) -> None:
    digest = hashlib.sha256(CONTENT).hexdigest()
    for name in (f'w-{digest[:8]}.pth', f'w-{digest}.safetensors', 'w-20210621.pth', 'w-12.pth'):
        server.files['/' + name] = File(CONTENT)
        assert fetch(f'{server.url}/{name}').read_bytes() == CONTENT
    wrong = f'/w-{digest[1:9]}.pth.tar'
    server.files[wrong] = File(CONTENT)
    refused(server.url + wrong, f'SHA-256 should begin with {digest[1:9]}, not {digest[:16]}; nothing was kept')
    assert not [p for p in cached_path(server.url + wrong).parent.iterdir() if '.part' in p.name]


def test_the_hubs_hash_is_held_to(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, 'ENDPOINT', server.url)
    for digest in ('0' * 64, hashlib.sha256(CONTENT).hexdigest()):
        headers = {'Location': '/cdn', 'X-Linked-Etag': f'"{digest}"'}
        server.files[ON_HUB.removeprefix('https://huggingface.co')] = File(status=302, headers=headers)
        server.files['/cdn'] = File(CONTENT)
        if digest.startswith('0'):
            refused(ON_HUB, 'SHA-256 should begin with 0000')
        else:
            assert fetch(ON_HUB).read_bytes() == CONTENT


def test_what_the_hubs_cache_has_is_not_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('MMSEG_VOLO_OFFLINE', '1')
    assert find_cached(ON_HUB) is None
    snapshot = tmp_path / 'hub/models--sail--dl/snapshots' / ('0' * 40)
    (snapshot / 'identityformer').mkdir(parents=True)
    (snapshot.parents[1] / 'refs').mkdir()
    (snapshot.parents[1] / 'refs/main').write_text(snapshot.name)
    path = snapshot / 'identityformer/identityformer_s12.pth'
    path.write_bytes(CONTENT)
    assert fetch(ON_HUB) == fetch(ON_HUB + '?download=true') == path


@pytest.mark.parametrize('target', ['http://example.org/w.pth', 'file:///etc/hosts', 'ftp://example.org/w.pth'])
def test_redirects_lead_to_https_only(server: Server, target: str) -> None:
    server.files['/w.pth'] = File(status=302, headers={'Location': target})
    refused(server.url + '/w.pth', f'got {target}|HTTP 302')


BAD = ['http://example.org/w.pth', 'ftp://h/w.pth', 'file:///etc/hosts', 'https:///w.pth', 'https://[h/w.pth']
BAD += ['https://h', 'https://h/', 'https://h/a/', 'https://h/a//w.pth', 'https://h/../w.pth', 'https://me:pw@h/w.pth']


@pytest.mark.parametrize('url', BAD)
def test_only_https_addresses_of_files(url: str) -> None:
    with pytest.raises(UsageError, match='https://HOST/PATH'):
        fetch(url)


def test_many_processes_make_one_download(server: Server, tmp_path: Path) -> None:
    url, hold = server.url + '/w.pth', threading.Event()
    server.files['/w.pth'] = File(CONTENT, cuts=[1000], hold=hold)

    def work(i: int) -> None:
        (tmp_path / f'{i}').write_bytes(fetch(url).read_bytes())

    processes = [fork.Process(target=work, args=(i,)) for i in range(4)]
    for process in processes:
        process.start()
    time.sleep(0.5)  # all are under way while the first is held up
    assert len(server.requests) == 1
    hold.set()
    for process in processes:
        process.join(30)
        assert process.exitcode == 0
    assert server.ranges() == [None, 'bytes=1000-']
    assert [(tmp_path / f'{i}').read_bytes() for i in range(4)] == 4 * [CONTENT]


def test_without_working_locks_the_file_is_still_right(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two downloads into one part, as on file systems where locks do nothing: one overtakes the other."""
    url, hold = server.url + '/w.pth', threading.Event()
    server.files['/w.pth'] = File(CONTENT, cuts=[1000], hold=hold, goes_on=True)
    monkeypatch.setattr('mmseg_volo.io.download.FileLock', lambda _: nullcontext())
    found: list[Path] = []
    thread = threading.Thread(target=lambda: found.append(fetch(url)))
    thread.start()
    part = cached_path(url).with_name('w.pth.part')
    while not (part.is_file() and part.stat().st_size == 1000):
        time.sleep(0.01)
    assert fetch(url).read_bytes() == CONTENT
    hold.set()
    thread.join(30)
    assert server.ranges() == [None, 'bytes=1000-']
    assert found[0].read_bytes() == CONTENT


def test_no_room_and_no_permission_are_said(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.files['/w.pth'] = File(CONTENT)
    usage = namedtuple('usage', 'free')
    with monkeypatch.context() as patch:
        patch.setattr(shutil, 'disk_usage', lambda _: usage(100))
        refused(server.url + '/w.pth', 'cannot be written .*do not fit', 'TORCH_HOME')

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, 'No space left on device')

    with monkeypatch.context() as patch:
        patch.setattr(transfer, '_write', full)
        refused(server.url + '/w.pth', 'cannot be written .No space left on device')
    (tmp_path / 'file').touch()
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'file'))
    refused(server.url + '/w.pth', 'cannot be written .Not a directory')
