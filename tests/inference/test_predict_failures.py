"""`mmseg-volo predict` where something fails: bad files, errors, a lost device, a full disk, absent packages."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import re
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from helpers.predicting import command, times

import mmseg_volo_cli
from mmseg_volo.inference import Options, predict_files
from mmseg_volo.inference import files as run
from mmseg_volo.inference import outputs as images
from mmseg_volo_cli import main


def test_bad_files_are_told_and_tried_again(
    checkpoint: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / 'out'
    (photos / 'bad.png').write_text('hello')
    for _ in range(2):
        assert main(command(checkpoint, photos, '--out', out)) == 2
        assert '1 of 4 files left out: ' in (error := capsys.readouterr().err) and 'bad.png (5 bytes)' in error
        assert len(times(out)) == 6
    (line,) = [json.loads(t) for t in (out / 'predictions.jsonl').read_text().splitlines() if '"bad.png"' in t][-1:]
    assert 'is not a readable picture' in line['error']
    cv2.imwrite(str(photos / 'bad.png'), np.zeros((5, 5), np.uint8))
    assert main(command(checkpoint, photos, '--out', out)) == 0


def test_what_a_file_cannot_hold_is_told_and_the_rest_kept(
    checkpoint: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    cv2.imwrite(str(photos / 'a_wide.png'), np.full((2, 66000, 3), 90, np.uint8))
    out = tmp_path / 'out'
    outputs = ['--outputs', 'overlays,masks,areas']
    for _ in range(2):
        assert main(command(checkpoint, photos, '--out', out, *outputs)) == 2
        assert re.search('1 of 4 files left out: .*a_wide.jpg is left out: a .jpg .* 66000x', capsys.readouterr().err)
        assert len(list(out.glob('**/overlays/**/*.jpg'))) == 3 and len(list(out.glob('**/masks/**/*.png'))) == 4
        told = list(csv.DictReader((out / 'areas.csv').open()))
        assert sum(int(line['pixels']) for line in told if line['file'] == 'a_wide.png') == 2 * 66000
    assert main(command(checkpoint, photos, '--out', out, '--outputs', 'masks')) == 0  # that much is done


@pytest.mark.parametrize('where', ['to_rgb', 'predict', 'write_image'])
@pytest.mark.parametrize('error', [KeyError('x'), cv2.error('OpenCV(5) no'), SyntaxError('cut'), RuntimeError('shape')])
def test_no_error_of_one_file_ends_a_folder(
    where: str, error: Exception, model: torch.nn.Module, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call, calls = getattr(run, where), []

    def failing(*given: object, **how: object) -> object:
        calls.append(given)
        if len(calls) == 1:
            raise error
        return call(*given, **how)

    monkeypatch.setattr(run, where, failing)
    with pytest.raises(ValueError, match=f'1 of 3 files left out: .*a.png: {type(error).__name__}: ') as told:
        predict_files(model, [str(photos)], tmp_path / 'out', Options(['masks', 'areas']))
    assert str(error).strip("'") in str(told.value)
    files = [line['file'] for line in csv.DictReader((tmp_path / 'out/areas.csv').open())]
    assert [*dict.fromkeys(files)] == ['b.png', 'deep/a.jpg']
    lines = [json.loads(line) for line in (tmp_path / 'out/predictions.jsonl').open()]
    assert [f'in {failing.__name__}' in line['traceback'] for line in lines if 'traceback' in line] == (
        [] if isinstance(error, cv2.error) else [True]
    )


def test_a_lost_device_stops_and_keeps(
    model: torch.nn.Module, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call, calls = run.predict, []

    def lost(*given: object, **how: object) -> object:
        calls.append(given)
        if len(calls) > 1:
            monkeypatch.setattr(torch, 'ones', lost)
            raise RuntimeError('CUDA error: unspecified launch failure')
        return call(*given, **how)

    monkeypatch.setattr(run, 'predict', lost)
    with pytest.raises(RuntimeError, match='CUDA error'):
        predict_files(model, [str(photos)], tmp_path / 'out', Options(['masks', 'areas']))
    assert {line['file'] for line in csv.DictReader((tmp_path / 'out/areas.csv').open())} == {'a.png'}


def test_a_full_disk_stops_and_keeps(
    checkpoint: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    write = images.write_whole

    def full(path: Path, content: bytes) -> None:
        if path.stem == 'b' and path.suffix == '.jpg':
            raise OSError(errno.ENOSPC, 'No space left on device', str(path))
        write(path, content)

    monkeypatch.setattr(images, 'write_whole', full)
    assert main(command(checkpoint, photos, '--out', tmp_path / 'out')) == 2
    error = capsys.readouterr().err
    assert re.search(r'No space left on device\); [12] of 3 files are done, and the same command continues', error)
    monkeypatch.setattr(images, 'write_whole', write)
    assert main(command(checkpoint, photos, '--out', tmp_path / 'out')) == 0
    assert re.search('[12] of 3 are done already', capsys.readouterr().out)


def test_absent_packages_are_named(
    model: torch.nn.Module, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ('av', 'rasterio', 'rasterio.features'):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ValueError, match='polygons: this needs rasterio, pip install rasterio'):
        predict_files(model, [str(photos)], tmp_path / 'out', Options(['polygons']))
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, 'shapely', None)
    with pytest.raises(ValueError, match='polygons: this needs shapely, pip install shapely'):
        predict_files(model, [str(photos)], tmp_path / 'out', Options(['polygons']))
    monkeypatch.setitem(sys.modules, 'av', None)
    (photos / 'v.mp4').touch()
    with pytest.raises(ValueError, match='v.mp4 is a video: reading it needs PyAV, pip install av'):
        predict_files(model, [str(photos)], tmp_path / 'out')
    assert not (tmp_path / 'out').exists()


def test_names_of_any_bytes_are_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, 'stdout', io.TextIOWrapper(written, 'utf-8', write_through=True))
    monkeypatch.setattr(mmseg_volo_cli, 'main', lambda: print(os.fsdecode(b'caf\xe9.png')))
    with pytest.raises(SystemExit):
        mmseg_volo_cli.run()
    assert written.getvalue() == b'caf\\udce9.png\n'
