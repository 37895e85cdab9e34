"""`mmseg-volo predict` on videos: the same times, size and masks, with few frames in memory."""

from __future__ import annotations

import csv
import threading
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from helpers.videos import film

import mmseg_volo
from mmseg_volo.datasets.synthetic import scenes
from mmseg_volo.inference import Options, predict_files
from mmseg_volo.utils.parallel import COUNT
from mmseg_volo.visualization import colour_mask
from mmseg_volo_cli import main

av = pytest.importorskip('av', reason='PyAV reads and writes videos: pip install av')


def frames_of(path: Path, format_: str = 'rgb24') -> tuple[list[float], list[np.ndarray], tuple]:
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        frames = [(frame.time, frame.to_ndarray(format=format_)) for frame in file.decode(stream)]
        return [t for t, _ in frames], [f for _, f in frames], (stream.average_rate, stream.width, stream.height)


@pytest.mark.parametrize(
    ('size', 'rate', 'steps'), [((64, 96), Fraction(30000, 1001), (1,)), ((61, 85), Fraction(25), (1, 3, 2))]
)
def test_results_have_the_videos_times_and_size(
    size: tuple[int, int], rate: Fraction, steps: tuple[int, ...], model: torch.nn.Module, tmp_path: Path
) -> None:
    video = film(tmp_path / 'v.mkv', size, rate, 7, steps)
    times, images, about = frames_of(video)
    wanted = [mmseg_volo.predict(model, image, ['confidence']) for image in images]
    kinds = ['masks', 'colours', 'overlays', 'confidence', 'areas', 'probabilities']
    predict_files(model, [str(video)], tmp_path / 'out', Options(kinds))
    for name, format_ in (
        ('masks/v.mkv', 'gray'),
        ('confidence/v.mkv', 'gray'),
        ('colours/v.mp4', 'rgb24'),
        ('overlays/v.mp4', 'rgb24'),
    ):
        found_times, found, found_about = frames_of(tmp_path / 'out' / name, format_)
        assert found_times == pytest.approx(times, abs=1e-3) and found_about[1:] == about[1:] == size[::-1]
        assert steps != (1,) or found_about[0] == pytest.approx(float(rate), rel=1e-3)
        for frame, expected in zip(found, wanted, strict=True):
            if name.startswith('masks'):
                assert np.array_equal(frame, expected.mask) and len(np.unique(frame)) > 1
            elif name.startswith('confidence'):
                assert np.array_equal(frame, np.rint(expected.confidence * 255))
            elif name.startswith('colours'):  # compressed
                assert np.abs(frame.astype(int) - colour_mask(expected.mask, expected.palette)).mean() < 25
    rows = [*csv.DictReader((tmp_path / 'out/areas/v.csv').open())]
    assert len(rows) == 7 * 10 and [row['frame'] for row in rows[::10]] == [*'1234567']
    total = [int(row['pixels']) for row in csv.DictReader((tmp_path / 'out/areas.csv').open())]
    assert total == sum(np.bincount(w.mask.ravel(), minlength=10) for w in wanted).tolist()
    assert len([*(tmp_path / 'out/probabilities/v').glob('*.npy')]) == 7


def test_frames_instead_of_a_lossless_video(checkpoint: Path, model: torch.nn.Module, tmp_path: Path) -> None:
    video = film(tmp_path / 'v.mkv', (64, 96), Fraction(10), 3)
    command = [
        'predict',
        str(checkpoint),
        str(video),
        '--out',
        str(tmp_path / 'out'),
        '--video-masks-as-png',
        '--device',
        'cpu',
    ]
    assert main(command) == 0
    found = sorted((tmp_path / 'out/masks/v').iterdir())
    assert [path.name for path in found] == ['000001.png', '000002.png', '000003.png']
    for path, image in zip(found, frames_of(video)[1], strict=True):
        assert np.array_equal(cv2.imread(str(path), cv2.IMREAD_UNCHANGED), mmseg_volo.predict(model, image).mask)


def test_a_broken_video_is_told_and_the_others_are_done(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder, out = tmp_path / 'in', tmp_path / 'out'
    folder.mkdir()
    film(folder / 'good.mkv', (32, 48), Fraction(10), 3)
    (folder / 'empty.mp4').touch()
    (folder / 'text.avi').write_text('hello')
    cut = film(folder / 'cut.mkv', (32, 48), Fraction(10), 30)
    content = cut.read_bytes()
    cut.write_bytes(content[:200])
    cv2.imwrite(str(folder / 'photo.png'), scenes.scene(0, 32, 48)[0])
    command = ['predict', str(checkpoint), str(folder), '--out', str(out), '--device', 'cpu']
    for _ in range(2):
        assert main(command) == 2
        said = capsys.readouterr()
        assert '3 of 5 files left out' in said.err and 'Traceback' not in said.err
        for name in ('empty.mp4', 'text.avi', 'cut.mkv'):
            assert f'{name} is not a readable video, or' in said.err or f'{name} holds no' in said.err
        left = sorted(str(p.relative_to(out)) for p in out.rglob('*') if p.is_file())
        assert left == ['masks/good.mkv', 'masks/photo.png', 'overlays/good.mp4', 'overlays/photo.jpg'] + [
            'predictions.jsonl'
        ]
    assert '2 of 5 are done already' in said.out


@pytest.mark.parametrize('kind', ['mkv', 'webm', 'avi', 'mov'])
def test_a_video_that_ends_before_it_says_is_refused(kind: str, model: torch.nn.Module, tmp_path: Path) -> None:
    options = {'movflags': 'faststart'} if kind == 'mov' else {}
    codec = 'libvpx-vp9' if kind == 'webm' else 'mpeg4'
    if codec not in av.codecs_available:
        pytest.skip(f'this PyAV has no {codec}')
    whole, cut = tmp_path / f'whole.{kind}', tmp_path / f'cut.{kind}'
    noise = np.random.default_rng(0)
    with av.open(str(whole), 'w', options=options) as file:
        stream = file.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, 'yuv420p'
        for i in range(30):
            frame = av.VideoFrame.from_ndarray(noise.integers(0, 255, (48, 64, 3)).astype(np.uint8), format='rgb24')
            frame.pts, frame.time_base = i, Fraction(1, 10)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size * 2 // 3])
    with pytest.raises(ValueError, match='1 of 2 files left out: .*cut.* ends too early: its header states 3.00 s'):
        predict_files(model, [str(whole), str(cut)], tmp_path / 'out')
    assert [path.name for path in (tmp_path / 'out/masks').iterdir()] == ['whole.mkv']


def test_a_name_with_a_colon_is_no_address(
    model: torch.nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    content = film(tmp_path / 'v.mkv', (32, 48), Fraction(10), 3).read_bytes()
    for name in ('12:30.mkv', 'file:x.mkv', 'http:y.mkv'):
        Path(name).write_bytes(content)
        predict_files(model, [name], Path('09:00') / name[:4], Options(['masks']))
        assert (Path('09:00') / name[:4] / 'masks' / name).is_file()


def test_playlists_lead_to_no_other_files(model: torch.nn.Module, tmp_path: Path) -> None:
    film(tmp_path / 'v.mkv', (32, 48), Fraction(10), 3)
    texts = {
        'a.mp4': f"ffconcat version 1.0\nfile '{tmp_path}/v.mkv'\n",
        'b.mkv': 'ffconcat version 1.0\nfile v.mkv\n',
        'c.mp4': 'v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n',
        'd.mp4': '#EXTM3U\n#EXT-X-TARGETDURATION:6\n#EXTINF:6,\nv.mkv\n#EXT-X-ENDLIST\n',
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(
            ValueError, match=f'{name} is (a playlist, or a video of an unsupported|not a readable video)'
        ):
            predict_files(model, [str(tmp_path / name)], tmp_path / 'out')
    with pytest.raises(ValueError, match='b.mkv is a playlist'):
        predict_files(model, [str(tmp_path / 'b.mkv')], tmp_path / 'out')


def test_what_a_codec_does_not_take_is_told_and_the_masks_kept(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    video, out = film(tmp_path / 'wide.mkv', (32, 16400), Fraction(10), 2), tmp_path / 'out'
    command = ['predict', str(checkpoint), str(video), '--out', str(out), '--device', 'cpu', '--window-size', '64']
    assert main(command) == 2
    told = capsys.readouterr().err
    assert '1 of 1 files left out: ' in told and 'overlays/wide.mp4 is left out: 16400x32 pixels by ' in told
    left = sorted(str(p.relative_to(out)) for p in out.rglob('*') if p.is_file())
    assert left == ['masks/wide.mkv', 'predictions.jsonl']
    assert len(frames_of(out / 'masks/wide.mkv', 'gray')[1]) == 2


def test_decoding_network_and_encoding_are_three_threads(
    model: torch.nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mmseg_volo.inference import video

    threads: dict[str, set[int]] = {}
    under_way, most = [0], [0]

    def watched(place: object, name: str, change: int) -> None:
        call = getattr(place, name)

        def method(*args: object) -> object:
            threads.setdefault(name, set()).add(threading.get_ident())
            under_way[0] += change
            most[0] = max(most[0], under_way[0])
            return call(*args)

        monkeypatch.setattr(place, name, method)

    watched(video.np, 'rot90', 1)  # of each frame that is decoded
    watched(video, 'predict', 0)
    watched(video._Writer, 'add', -1)
    predict_files(model, [str(film(tmp_path / 'v.mkv', (32, 48), Fraction(10), 60))], tmp_path / 'out')
    assert all(len(found) == 1 for found in threads.values()) and len(set.union(*threads.values())) == 3
    assert most[0] <= 2 * COUNT + 3 < 60
