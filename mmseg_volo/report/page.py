"""Write the results of a work dir as a single self-contained HTML file."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from mmseg_volo.datasets.check.files import IGNORED
from mmseg_volo.engine.work_dir import DATA_REPORT, RESULTS_PAGE
from mmseg_volo.errors import UsageError
from mmseg_volo.report.evaluation_view import evaluation_view
from mmseg_volo.report.figures import curves
from mmseg_volo.report.sessions import Curve, Session, joined, read_sessions
from mmseg_volo.utils.files import write_whole

SCORES = ('mIoU', 'mAcc', 'aAcc', 'mDice', 'mFscore')  # of a validation, in the order of the curves


def write_report(work_dir: str | Path, out: str | Path | None = None) -> Path:
    """Write the page of a work dir: self-contained, without scripts, for light and dark.

    Args:
        work_dir: folder of trainings and tests.
        out: path of the page; `report.html` in the work dir if None.

    Returns:
        The path of the page.

    Raises:
        UsageError: the work dir holds no session, or the page cannot be written.
    """
    work_dir = Path(work_dir)
    page = Path(out) if out else work_dir / RESULTS_PAGE
    content = render(work_dir).encode()
    try:
        page.parent.mkdir(parents=True, exist_ok=True)
        write_whole(page, content)
    except OSError as error:
        raise UsageError(f'{page} cannot be written ({error.strerror}): name another file with --out') from error
    return page


def render(work_dir: Path) -> str:
    """Return the HTML of the page.

    Raises:
        UsageError: the work dir holds no training or test.
    """
    sessions = read_sessions(work_dir)
    training, scores = joined(sessions)
    evaluations = sorted((e for session in sessions for e in session.evaluations), key=lambda e: e['time'])
    newest = evaluations[-1] if evaluations else None
    environment = Environment(
        loader=PackageLoader('mmseg_volo.report', '.'), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters |= dict(number=_number, when=_when, per_cent=_per_cent)
    result = evaluation_view(newest) if newest else None
    if result:
        result['matrix'] = Markup(result['matrix'])
    return environment.get_template('page.html').render(
        name=next((s.record['name'] for s in sessions if s.record.get('name')), work_dir.absolute().name),
        work_dir=str(work_dir),
        facts=_facts(sessions),
        figures=[Markup(figure) for figure in _figures(training, scores)],
        result=result,
        evaluations=evaluations,
        cards=_cards(sessions, result, scores),
        data=_data(work_dir),
        speed=_speed(sessions, training, scores),
        sessions=sessions,
        versions=next((s.record['versions'] for s in reversed(sessions) if s.record.get('versions')), {}),
        commands=_commands(sessions, work_dir),
        config=_config(sessions),
    )


def _figures(training: Mapping[str, Curve], scores: Mapping[str, Curve]) -> list[str]:
    losses = {name: curve for name, curve in training.items() if 'loss' in name}
    if len(losses) == 2:  # the sum and its only term
        losses = {'loss': losses.get('loss', [])} if 'loss' in losses else losses
    named = {name: scores[name] for name in SCORES if name in scores} or dict(list(scores.items())[:4])
    figures = []
    if losses:
        figures.append(curves('loss', 'Loss', losses, log=True))
    if named:
        figures.append(curves('scores', 'Validation scores', named, peak=next(iter(named))))
    if rate := training.get('lr'):
        figures.append(curves('rate', 'Learning rate', {'learning rate': rate}))
    return figures


def _facts(sessions: Sequence[Session]) -> list[tuple[str, str]]:
    """Return the rows of the table of model, data and schedule."""
    trained = [s.record for s in sessions if s.record.get('kind') == 'train']
    record = trained[-1] if trained else next((s.record for s in reversed(sessions) if s.record), {})
    rows = []
    if model := record.get('model'):
        modules = [' '.join(filter(None, (model['backbone'], model['arch']))), model['neck'], model['head']]
        rows.append(('model', f'{" + ".join(filter(None, modules))}, {model["params"] / 1e6:.1f} M parameters'))
        rows.append(('initial weights', model['weights'] or 'random weights'))
    for role, data in record.get('data', {}).items():
        rows.append((f'{role} images', f'{data["images"]:,}, {data["type"]}, {data["folder"]}'))
    if 'max_iters' in record:
        rows.append(('schedule', f'{record["max_iters"]:,} iterations, {record["batch"]}'))
    if 'optimizer' in record:
        rows.append(('optimiser', f'{record["optimizer"]}, learning rate {record["lr"]:g}, {record["precision"]}'))
    if 'device' in record:
        many = f'{record["processes"]} x ' if record['processes'] > 1 else ''
        rows.append(('machine', f'{many}{record["device"]}, {record["cores"]} cores, {record["system"]}'))
    return rows


def _cards(
    sessions: Sequence[Session], result: Mapping[str, Any] | None, scores: Mapping[str, Curve]
) -> list[tuple[str, str]]:
    """Return the numbers on top of the page: (value, label)."""
    cards = []
    if result and result['miou'] is not None:
        cards += [(f'{result["miou"]:.1f}', 'mIoU, %'), (f'{result["accuracy"]:.1f}', 'pixel accuracy, %')]
        cards.append((f'{result["images"]:,}', 'images scored'))
    elif best := scores.get('mIoU'):
        cards.append((f'{max(value for _, value in best):.1f}', 'best mIoU, %'))
    if model := next((s.record['model'] for s in reversed(sessions) if s.record.get('model')), None):
        cards.append((f'{model["params"] / 1e6:.1f} M', 'parameters'))
    if seconds := sum(_seconds(s.record) for s in sessions if s.record.get('kind') == 'train'):
        cards.append((_duration(seconds), 'of training'))
    return cards


def _speed(
    sessions: Sequence[Session], training: Mapping[str, Curve], scores: Mapping[str, Curve]
) -> list[tuple[str, str]]:
    rows = []
    records = [s.record for s in sessions if s.record]
    if times := [value for _, value in training.get('time', [])]:
        per_iter = median(times)
        text = f'{per_iter:.3g} s per iteration'
        if images := next((r['images_per_iter'] for r in reversed(records) if 'images_per_iter' in r), None):
            text += f', {images / per_iter:.3g} images per second'
        rows.append(('training', text))
        waits = [value for _, value in training.get('data_time', [])]
        if waits:
            rows.append(('waiting for data', f'{100 * min(median(waits) / per_iter, 1):.1f} % of that time'))
    timed = [line['time'] for s in sessions for line in s.scalars if 'time' in line and 'lr' not in line]
    if timed:
        rows.append(('validation', f'{median(timed):.3g} s per batch'))
    gpu = [r['gpu_memory_mb'] for r in records if 'gpu_memory_mb' in r]
    gpu += [value for _, value in training.get('memory', [])]
    if gpu:
        rows.append(('GPU memory', f'{max(gpu) / 1024:.1f} GiB at most'))
    if memory := [r['memory_mb'] for r in records if 'memory_mb' in r]:
        rows.append(('memory', f'{max(memory) / 1024:.1f} GiB at most, first process'))
    return rows


def _data(work_dir: Path) -> dict[str, Any] | None:
    """Return the results of the data check: per class its share of labelled pixels and the number of its images."""
    try:
        report = json.loads((work_dir / DATA_REPORT).read_text(encoding='utf-8'))
        roles = {role.removesuffix('_dataloader'): counts for role, counts in report['data_sets'].items()}
        names = dict.fromkeys(name for counts in roles.values() for name in counts['pixels'])
        totals = {role: max(sum(counts['pixels'].values()), 1) for role, counts in roles.items()}
        rows = [
            (
                name,
                name == IGNORED,
                [
                    (100 * counts['pixels'].get(name, 0) / totals[role], counts['holding'].get(name, 0))
                    for role, counts in roles.items()
                ],
            )
            for name in names
        ]
        sets = [
            (role, counts['images'], counts['labels'], list(counts['sizes'].items())[:3], len(counts['sizes']))
            for role, counts in roles.items()
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # no such file, or one of another version
        return None
    widest = max((share for _, ignored, cells in rows if not ignored for share, _ in cells), default=1) or 1
    return dict(roles=list(roles), rows=rows, sets=sets, widest=widest, notes=report.get('notes', []))


def _commands(sessions: Sequence[Session], work_dir: Path) -> list[str]:
    commands = [s.record['command'] for s in sessions if s.record.get('command')]
    checkpoints = [*work_dir.glob('best_*.pth')] or [*work_dir.glob('iter_*.pth'), *work_dir.glob('epoch_*.pth')]
    if checkpoints:
        checkpoint = max(checkpoints, key=lambda path: path.stat().st_mtime)
        commands.append(f'mmseg-volo predict {shlex.quote(str(checkpoint))} YOUR_IMAGES --out predictions')
    return [*dict.fromkeys(commands), f'mmseg-volo report {shlex.quote(str(work_dir))}']


def _config(sessions: Sequence[Session]) -> str | None:
    for session in reversed(sessions):
        try:
            return (session.folder / 'vis_data/config.py').read_text(encoding='utf-8')
        except (OSError, ValueError):
            continue
    return None


def _seconds(record: Mapping[str, Any]) -> float:
    if 'ended' not in record:
        return 0
    return (datetime.fromisoformat(record['ended']) - datetime.fromisoformat(record['started'])).total_seconds()


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f'{seconds:.0f} s'
    minutes = seconds / 60
    return f'{minutes:.0f} min' if minutes < 90 else f'{minutes / 60:.1f} h'


def _number(value: float | None) -> str:
    return '–' if value is None or not math.isfinite(value) else f'{value:.1f}'


def _per_cent(value: float) -> str:
    return f'{value:.1f} %' if value >= 0.1 or not value else f'{value:.1g} %'


def _when(text: str | None) -> str:
    return datetime.fromisoformat(text).strftime('%Y-%m-%d %H:%M UTC') if text else '–'
