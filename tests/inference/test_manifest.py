"""Several processes that fill one folder of results, and calls after each other with inputs of the same names."""

from __future__ import annotations

import csv
import json
import os
import random
import shutil
import signal
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from mmseg_volo.datasets.synthetic import scenes
from mmseg_volo.errors import UsageError
from mmseg_volo.inference import Options, predict_files
from mmseg_volo.inference import name_collisions as same_names
from mmseg_volo.inference.manifest import LOCKS, Manifest
from mmseg_volo.inference.sources import Item, find_inputs
from mmseg_volo.utils.files import write_whole

CLASSES = ['one', 'two']
AREAS = Options(['masks', 'areas'])


def pictures(folder: Path, *names: str) -> Path:
    import cv2

    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        seed = sum(map(ord, str(folder / name)))
        cv2.imwrite(str(folder / name), scenes.scene(seed, 32, 48)[0][..., ::-1])
    return folder


def files(folder: Path, count: int) -> Path:
    folder.mkdir()
    for i in range(count):
        (folder / f'{i}.png').write_bytes(bytes([i]))
    return folder


def records(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / 'predictions.jsonl').read_bytes().splitlines()[1:]]


def in_areas(out: Path) -> Counter[str]:
    return Counter(row['file'] for row in csv.DictReader((out / 'areas.csv').open()))


def fill(out: Path, folders: list[Path], seconds: float = 0, overwrite: bool = False) -> None:
    """What `predict_files` does of each file, without a network: its result is its first byte."""
    items = find_inputs([*map(str, folders)], out)
    record = Manifest(out, dict(model='this'), items, overwrite)
    todo = items
    while todo:
        for item in record.claim(todo, ['masks']):
            time.sleep(seconds * random.random())
            (out / 'masks').mkdir(exist_ok=True)
            write_whole(out / 'masks' / item.name, item.path.read_bytes())
            number = item.path.read_bytes()[0]
            record.add(item, dict(outputs={'masks': [f'masks/{item.name}'], 'areas': []}, pixels=[number, 1]))
        record.refresh()
        todo = [item for item in todo if not record.is_done(item, ['masks'])]
    record.write_areas(CLASSES)
    record.close()


def forked(*given: object) -> int:
    child = os.fork()
    if not child:
        status = 1
        try:
            random.seed()
            fill(*given)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return child


needs_fork = pytest.mark.skipif(not hasattr(os, 'fork'), reason='it forks')


@needs_fork
@pytest.mark.parametrize('overwrite', [False, True])
def test_the_same_files_are_shared(tmp_path: Path, overwrite: bool) -> None:
    top, out = files(tmp_path / 'a', 30), tmp_path / 'out'
    if overwrite:
        fill(out, [top])
    before = len(records(out)) if overwrite else 0
    children = [forked(out, [top], 0.01, overwrite) for _ in range(3)]
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
    assert len(records(out)) == 30 and before in (0, 30)  # none twice
    assert in_areas(out) == {f'{i}.png': 2 for i in range(30)}
    assert sorted(path.name for path in out.iterdir()) == ['areas.csv', 'masks', 'predictions.jsonl']


@needs_fork
def test_killed_at_any_time(tmp_path: Path) -> None:
    draw, out = random.Random(0), tmp_path / 'out'
    one, two = files(tmp_path / 'a', 40), tmp_path / 'b'
    files(two, 60)
    for i in range(40):
        (two / f'{i}.png').unlink()
    for _ in range(12):
        children = [forked(out, [one, two], 0.004), forked(out, [two], 0.004)]
        for child in draw.sample(children, draw.choice([1, 2])):
            time.sleep(draw.random() * 0.05)
            os.kill(child, signal.SIGKILL)
        for child in children:
            assert os.waitpid(child, 0)[1] in (0, signal.SIGKILL)
    fill(out, [one, two])
    assert in_areas(out) == {f'{i}.png': 2 for i in range(60)}
    assert all((out / f'masks/{i}.png').read_bytes() == bytes([i]) for i in range(60))
    assert not (out / LOCKS).exists()


@needs_fork
def test_a_line_that_was_cut_meanwhile(tmp_path: Path) -> None:
    top, out = files(tmp_path / 'a', 3), tmp_path / 'out'
    items = find_inputs([str(top)], out)
    record = Manifest(out, {}, items)
    for item in items:
        with (out / 'predictions.jsonl').open('ab') as file:
            file.write(b'{"file": "1.png", "inp')  # of another process, killed while it wrote
        record.add(item, dict(outputs={'areas': []}, pixels=[1]))
    record.close()
    assert Manifest(out, {}, items).entries.keys() == {'0.png', '1.png', '2.png'}


def test_other_settings_while_one_is_at_it(tmp_path: Path) -> None:
    top, out = files(tmp_path / 'a', 3), tmp_path / 'out'
    items = find_inputs([str(top)], out)
    record = Manifest(out, dict(model='this'), items)
    with pytest.raises(UsageError, match=r'out is being filled by process \d+ on .* with other settings: wait'):
        Manifest(out, dict(model='that'), items, overwrite=True)
    with pytest.raises(UsageError, match=r'out holds results made with other settings \(model\)'):
        Manifest(out, dict(model='that'), items)
    same = Manifest(out, dict(model='this'), items, overwrite=True)
    claims = [record.claim(items, ['masks']), same.claim(items, ['masks'])]
    assert next(claims[0]) == items[0] and next(claims[1]) == items[1] and next(claims[0]) == items[2]
    assert not [*claims[1]]
    record.close()  # stopped: the other one may do what it was at
    assert [*same.claim(items, ['masks'])] == [items[0], items[2]]
    same.close()


def test_same_names_at_the_same_time(tmp_path: Path) -> None:
    a, b, out = files(tmp_path / 'a', 2), files(tmp_path / 'b', 2), tmp_path / 'out'
    items = [find_inputs([str(folder)], out) for folder in (a, b)]
    one, two = (Manifest(out, {}, given, overwrite=True) for given in items)
    claim = one.claim(items[0], ['areas'])
    first = next(claim)
    assert not [*two.claim(items[1][:1], ['areas'])]  # while it is at it
    one.add(first, dict(outputs={'areas': []}, pixels=[1]))
    assert not [*two.claim(items[1][:1], ['areas'])]  # and once it is done
    assert 'a/0.png and ' in two.failure(items[1][0]) and 'b/0.png would be written' in two.failure(items[1][0])
    assert [*two.claim(items[1], ['areas'])] == [items[1][1]]
    one.close(), two.close()


def test_same_names_from_two_folders(
    model: torch.nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    a, b, out = (tmp_path / name for name in ('a', 'b', 'out'))
    pictures(a, 's.png', 'deep/t.png'), pictures(b, 's.jpg', 'u.png')
    predict_files(model, [str(a)], out, AREAS)
    mask, before = (out / 'masks/s.png').read_bytes(), (out / 'predictions.jsonl').read_bytes()
    with pytest.raises(UsageError, match=r'out holds results of .*a/s.png and those of .*b/s.jpg would be written to'):
        predict_files(model, [str(b)], out, AREAS)
    assert (out / 'masks/s.png').read_bytes() == mask and (out / 'predictions.jsonl').read_bytes() == before
    monkeypatch.chdir(a)
    (tmp_path / 'link').symlink_to(tmp_path)
    for given in ('.', '../a', str(tmp_path / 'link/a'), '../b/../a/s.png'):  # the same files
        assert predict_files(model, [given], tmp_path / 'link/out', AREAS)
        assert ' are done already' in capsys.readouterr().out
    shutil.copytree(a, tmp_path / 'copy')
    a.rename(tmp_path / 'moved')  # the same files, elsewhere
    predict_files(model, [str(tmp_path / 'moved')], out, AREAS)
    assert '2 of 2 are done already' in capsys.readouterr().out
    with pytest.raises(UsageError, match=r'moved/.* and those of .*copy/.* \(and 1 more\): give .* --overwrite'):
        predict_files(model, [str(tmp_path / 'copy')], out, AREAS)
    assert predict_files(model, [str(b)], out, AREAS, overwrite=True)
    assert (out / 'masks/s.png').read_bytes() != mask
    assert in_areas(out) == {'deep/t.png': 10, 's.jpg': 10, 'u.png': 10}  # none of what was replaced


def test_file_systems_that_take_names_for_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    top, out = tmp_path / 'a', tmp_path / 'out'
    names = ['x.png', 'X.png', '\u00e9.png', 'e\u0301.png']
    items = [Item(top / name, Path(name)) for name in names]
    Manifest(out, {}, items).close()  # here they are four
    monkeypatch.setattr(same_names, 'folds_case', lambda *given: True)
    for pair in (items[:2], items[2:]):
        with pytest.raises(UsageError, match='would be written to the same file, because their names map to the same'):
            Manifest(out, {}, pair)


def test_kinds_are_joined(model: torch.nn.Module, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    top, out = pictures(tmp_path / 'a', 's.png'), tmp_path / 'out'
    for kinds in (['masks'], ['colours'], ['masks', 'colours']):
        predict_files(model, [str(top)], out, Options(kinds))
    assert '1 of 1 are done already' in capsys.readouterr().out
    assert records(out)[-1]['outputs'].keys() == {'areas', 'masks', 'colours'}


def test_the_same_folder_for_results(model: torch.nn.Module, tmp_path: Path) -> None:
    top = pictures(tmp_path / 'p', '1.jpg', '2.jpg')
    assert [len(predict_files(model, [str(top)], top)) for _ in range(3)] == [4, 4, 4]


@pytest.fixture(autouse=True)
def nothing_held() -> Iterator[None]:
    yield
    from mmseg_volo.utils.locks import _HELD

    assert not [lock for lock in _HELD if lock._file is not None]
