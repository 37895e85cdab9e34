"""The page of results, from records made by hand and by real runs."""

from __future__ import annotations

import json
import math
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from helpers.tools import train_options

from mmseg_volo.datasets.synthetic import scenes
from mmseg_volo.evaluation import confusion
from mmseg_volo.evaluation.confusion import confusion_matrix, iou
from mmseg_volo.report import recorder, write_report
from mmseg_volo.report.evaluation_view import errors
from mmseg_volo.report.recorder import RecordHook
from mmseg_volo.report.sessions import Session, joined
from mmseg_volo.report.tally import FORMAT, MAX_SHOWN_IMAGES, SIDE, EvaluationTally
from mmseg_volo_cli import main

EVIL = '<script>alert(1)</script>"\'><img src=x onerror=alert(2)> $x^{2}$ {{7*7}} & </style></svg>'

ONE = ['train_cfg.max_iters=1', 'train_cfg.val_interval=1', 'default_hooks.checkpoint.interval=1']


class Page(HTMLParser):
    """The tags and texts of a page."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def masks(seed: int, classes: int, wrong: float, size: tuple[int, int] = (60, 90)) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, classes, size)
    prediction = np.where(rng.random(size) < wrong, rng.integers(0, classes, size), truth)
    truth[:5] = 255
    return torch.from_numpy(truth), torch.from_numpy(prediction)


def by_hand(work: Path, classes: int = 3) -> Path:
    """A work dir of which every name is hostile."""
    session, found = work / '20260101_000000', EvaluationTally(classes, 255)
    (session / 'vis_data').mkdir(parents=True)
    for k in range(10):
        path = work / f'<u>"{k}&.png'
        cv2.imwrite(str(path), np.full((60, 90, 3), 20 * k, np.uint8))
        found.add(str(path), *masks(k, classes, 0.09 * k))
    names = [EVIL, *(f'class {i}' for i in range(1, classes))]
    colours = [[40 * i % 256, 200, 90] for i in range(classes)]
    known = dict(kind='val', iter=9, time='2026-01-01T00:00:00+00:00', metrics={EVIL: 1.0, 'mIoU': 2.0})
    (session / 'val.json').write_text(json.dumps(dict(**found.record(), **known, classes=names, palette=colours)))
    loss = [
        dict(loss=math.nan if i == 5 else 2.0 + i, lr=0.1, iter=i, step=i, **{f'loss{EVIL}': 1.0}) for i in range(9)
    ]
    (session / 'vis_data/scalars.json').write_text('\n'.join(map(json.dumps, loss)) + '\n{"loss": 1, "st')
    (session / 'vis_data/config.py').write_text(f'x = "</pre>{EVIL}"')
    described = dict(command=EVIL, outcome=f'failed: {EVIL}', kind='train', start_iter=0, format=FORMAT, name=EVIL)
    (session / 'session.json').write_text(json.dumps({**described, 'started': '2026-01-01T00:00:00+00:00'}))
    pixels = {name: 7 * i for i, name in enumerate([*names, 'ignored'])}
    part = dict(images=1, labels=1, sizes={EVIL: 1}, pixels=pixels, holding=pixels)
    data = dict(notes=[EVIL], faults={}, data_sets=dict(train_dataloader=part))
    (work / 'data.json').write_text(json.dumps(data))
    return work


@pytest.mark.parametrize('classes', [3, 150])
def test_no_text_of_a_run_becomes_part_of_the_page(tmp_path: Path, classes: int) -> None:
    text = write_report(by_hand(tmp_path, classes)).read_text()
    page = Page(text)
    assert {'script', 'u', 'iframe', 'link', 'object'}.isdisjoint(tag for tag, _ in page.tags)
    assert not any(name.startswith('on') for _, attributes in page.tags for name in attributes)
    assert '{{7*7}}' in text and '49' not in re.findall(r'\$x\^\{2\}\$ (\S+)', text)
    assert page.texts.count(EVIL) >= 4  # class, note, command, title ...
    linked = [a[key] for _, a in page.tags for key in ('src', 'href', 'xlink:href') if key in a]
    assert linked and all(link.startswith(('data:image/', '#')) for link in linked)
    assert not re.findall(r'url\((?!#)', text) and '@import' not in text
    assert "default-src 'none'" in text


def test_ids_are_its_own_and_colours_are_the_style_sheets(tmp_path: Path) -> None:
    page = Page(write_report(by_hand(tmp_path)).read_text())
    ids = [attributes['id'] for _, attributes in page.tags if 'id' in attributes]
    assert ids and len(ids) == len(set(ids))
    used = {found for _, a in page.tags for value in a.values() for found in re.findall(r'url\(#(.+?)\)', value or '')}
    assert used and used <= set(ids)
    assert '#0101' not in str(page.tags) and 'var(--line0)' in str(page.tags)


def test_page_in_a_browser(tmp_path: Path) -> None:
    playwright = pytest.importorskip('playwright.sync_api', reason='playwright is not installed')
    chromium = shutil.which('chromium') or pytest.skip('there is no chromium')
    path = write_report(by_hand(tmp_path))
    with playwright.sync_playwright() as starts:
        browser = starts.chromium.launch(executable_path=chromium, args=['--no-sandbox', '--disable-gpu'])
        seen = {}
        for scheme in ('light', 'dark'):
            page, said = browser.new_page(color_scheme=scheme, viewport=dict(width=400, height=800)), []
            page.on('console', lambda message, said=said: said.append(message.text))
            page.on('dialog', lambda dialog, said=said: (said.append('dialog'), dialog.dismiss()))
            page.goto(path.as_uri())
            assert not said and page.title().startswith('<script>')
            assert page.evaluate('[...document.images].every(i => i.naturalWidth > 0) && document.images.length') == 32
            assert page.evaluate('document.documentElement.scrollWidth <= innerWidth')
            label, back = "document.querySelector('svg text')", 'document.body'
            script = f'[getComputedStyle({label}).fill, getComputedStyle({back}).backgroundColor]'
            seen[scheme] = [sum(map(int, re.findall(r'\d+', colour)[:3])) for colour in page.evaluate(script)]
        browser.close()
    assert seen['light'][0] < 500 < 700 < seen['light'][1]  # dark letters on a light page
    assert seen['dark'][1] < 100 < 400 < seen['dark'][0]


def test_joined_curves() -> None:
    def session(start: int | None, steps: range, value: float, **record: Any) -> Session:
        lines = [dict(loss=value, lr=1.0, iter=i, step=i) for i in steps]
        lines += [dict(mIoU=value, time=1.0, step=steps[-1])]
        record |= {} if start is None else dict(start_iter=start)
        return Session(Path(), record, lines, [])

    first, second = session(0, range(10, 51, 10), 1.0), session(25, range(30, 61, 10), 2.0)
    training, scores = joined([first, second])
    assert training['loss'] == [(10, 1.0), (20, 1.0), (30, 2.0), (40, 2.0), (50, 2.0), (60, 2.0)]
    assert scores == {'mIoU': [(60, 2.0)]}
    assert joined([first, session(None, range(30, 61, 10), 2.0)])[0] == training  # without a record, by its first line
    assert joined([first, session(0, range(10, 21, 10), 3.0)])[0]['loss'] == [(10, 3.0), (20, 3.0)]  # begun anew
    assert joined([first, session(None, range(10), 9.0, kind='test')]) == joined([first])
    epochs = [dict(loss=1.0, epoch=1, iter=7, step=7), dict(mIoU=5.0, step=1)]
    assert joined([Session(Path(), {}, epochs, [])])[1] == {'mIoU': [(7, 5.0)]}


def test_confusion_counts_what_is_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    truth, prediction = masks(0, 4, 0.5)
    truth[7, :3], prediction[8, :3] = torch.tensor([4, -1, 99]), torch.tensor([4, -1, 99])
    expected = np.zeros((4, 4), np.int64)
    for t, p in zip(truth.flatten().tolist(), prediction.flatten().tolist(), strict=True):
        if 0 <= t < 4 and 0 <= p < 4:
            expected[t, p] += 1
    monkeypatch.setattr(confusion, 'PIECE', 500)
    for wide in (False, True):  # what has negative values goes another way
        low = -1 if wide else 200
        pair = [mask.where(mask >= 0, torch.tensor(low)) for mask in (truth, prediction)]
        counts = confusion_matrix(*pair, 4, 255)[:4, :4]
        assert np.array_equal(counts, expected) and counts.dtype == np.int64
    expected[2] = 0
    assert np.array_equal(confusion_matrix(*pair, 4, 2)[:4, :4], expected)
    assert np.isnan(iou(np.diag([3, 0]))[1]) and iou(np.diag([3, 0]))[0] == 1


def test_what_is_ignored_is_shown_as_unscored_where_its_value_is_that_of_a_class() -> None:
    truth, prediction = torch.tensor([[0, 1, 1, 2]], dtype=torch.uint8), torch.tensor([[0, 0, 1, 2]])
    tally = EvaluationTally(3, ignore_index=1)
    tally.add('a.png', truth, prediction)
    pngs = tally.best[0].truth, tally.best[0].prediction
    shown, seen = (cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED) for png in pngs)
    assert shown.tolist() == [[0, 3, 3, 2]] and seen.tolist() == [[0, 0, 1, 2]]


def test_parts_together_are_the_whole(tmp_path: Path) -> None:
    whole, parts = EvaluationTally(3, 255), [EvaluationTally(3, 255), EvaluationTally(3, 255)]
    for k in range(11):
        path = str(tmp_path / f'{k}.png')
        size = (60, SIDE + 1) if k == 4 else (30, 40)
        for one in (whole, parts[k % 2]):
            one.add(path, *masks(k, 3, (k * 7 % 11) / 11, size))
    whole.add('blank', torch.full((5, 5), 255), torch.zeros(5, 5, dtype=torch.long))
    parts[0].add('blank', torch.full((5, 5), 255), torch.zeros(5, 5, dtype=torch.long))
    parts[0].merge(parts[1])
    assert parts[0].record() == whole.record()
    record = whole.record()
    scores = dict(record['images'])
    assert scores.pop('blank') is None
    order = sorted(scores, key=scores.get)
    assert [shown['image'] for shown in record['worst']] == order[:MAX_SHOWN_IMAGES]
    assert [shown['image'] for shown in record['best']] == order[: -MAX_SHOWN_IMAGES - 1 : -1]
    assert all(shown['picture'] is None for shown in record['best'])  # there are no such files
    assert max(max(shown.size) for shown in (*whole.best, *whole.worst)) <= SIDE
    assert json.loads(json.dumps(record))['confusion'] == whole.confusion.tolist()


def test_error_map() -> None:
    wrong, scored = np.array([[True, False, False]]), np.array([[True, True, False]])
    red, grey, blue = errors(np.full((1, 3, 3), 128, np.uint8), wrong, scored)[0].astype(int)
    assert red[0] > red[1] + 100 and np.ptp(grey) == 0 and blue[2] > blue[0] + 20


@pytest.fixture(scope='module')
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return scenes.generate(tmp_path_factory.mktemp('data') / 'scenes', 4, 3, 64, 128)


def test_every_training_and_test_leaves_a_page(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    options = train_options(data, tmp_path)
    assert main(['train', 'volo_demo', *options, 'train_cfg.val_interval=2']) == 0
    assert f'report: {tmp_path / "report.html"}' in capsys.readouterr().out
    (session,) = tmp_path.glob('2*/session.json')
    said = json.loads(session.read_text())
    assert said['outcome'] == 'finished' and (said['start_iter'], said['end_iter']) == (0, 4)
    assert said['command'].startswith('mmseg-volo train volo_demo --work-dir') and said['lr'] == 0.02
    assert said['data']['val']['images'] == 3 and said['model']['params'] > 1e6
    record = json.loads((session.parent / 'val.json').read_text())
    assert record['iter'] == 4 and len(record['images']) == 3 and len(record['best']) == 3
    assert np.nanmean(iou(np.array(record['confusion']))) * 100 == pytest.approx(record['metrics']['mIoU'], abs=0.006)
    page = Page((tmp_path / 'report.html').read_text())
    assert {'Curves', 'Classes', 'Confusions', 'Data', 'Speed and memory', 'Versions', 'ignored'} <= set(page.texts)
    assert len([1 for tag, _ in page.tags if tag == 'img']) == 12
    assert f'mmseg-volo predict {tmp_path / "iter_4.pth"} YOUR_IMAGES --out predictions' in page.texts

    assert main(['test', 'volo_demo', str(tmp_path / 'iter_4.pth'), *options]) == 0
    tested = [json.loads(p.read_text()) for p in tmp_path.glob('2*/test.json')]
    assert len(tested) == 1 and tested[0]['confusion'] == record['confusion']
    out = tmp_path / 'elsewhere/page.html'
    assert main(['report', str(tmp_path), '--out', str(out)]) == 0
    assert 'Test of iter_4.pth' in out.read_text() and 'Validation at' not in out.read_text()


def test_what_fails_in_a_report_ends_nothing(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def broken(*args: Any) -> None:
        raise RuntimeError('all is\nlost')

    monkeypatch.setattr(EvaluationTally, 'add', broken)
    monkeypatch.setattr(recorder, 'write_report', broken)
    assert main(['train', 'volo_demo', *train_options(data, tmp_path), *ONE]) == 0
    said = capsys.readouterr().out
    assert said.count('there is no report of this evaluation (RuntimeError: all is lost)') == 1
    assert said.count('there is no report of the results (RuntimeError: all is lost)') == 1
    assert (tmp_path / 'iter_1.pth').is_file() and not list(tmp_path.glob('2*/val.json'))


def test_a_stopped_training_leaves_a_page_too(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*args: Any, **kwargs: Any) -> None:
        raise SystemExit(143)

    monkeypatch.setattr(RecordHook, 'after_train_iter', stop)
    with pytest.raises(SystemExit, match='143'):
        main(['train', 'volo_demo', *train_options(data, tmp_path), *ONE])
    (session,) = tmp_path.glob('2*/session.json')
    assert json.loads(session.read_text())['outcome'] == 'stopped'
    assert 'No validation or test of this work dir was recorded' in (tmp_path / 'report.html').read_text()


@pytest.mark.parametrize(('there', 'said'), [(False, 'there is no folder'), (True, 'holds no training or test')])
def test_no_work_dir(there: bool, said: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    if there:
        (tmp_path / 'work').mkdir()
    assert main(['report', str(tmp_path / 'work')]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / 'work/report.html').exists()
