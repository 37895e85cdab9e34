"""What the trainings and tests in a work dir have left: one session per start, joined where `--resume` went on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmseg_volo.errors import UsageError
from mmseg_volo.report.tally import FORMAT

Curve = list[tuple[int, float]]  # (iteration, value)
NOT_SCORES = frozenset(('step', 'iter', 'epoch', 'time', 'data_time', 'memory', 'lr', 'base_lr', 'grad_norm'))


@dataclass(frozen=True)
class Session:
    """What one start of a command has left."""

    folder: Path  # WORK_DIR/TIME
    record: dict[str, Any]  # of `RecordHook`; empty for sessions without one
    scalars: list[dict[str, Any]]  # lines of mmengine's scalars.json
    evaluations: list[dict[str, Any]]


def read_sessions(work_dir: Path) -> list[Session]:
    """The sessions of a work dir, the oldest first.

    Raises:
        UsageError: there is no such folder, or no session in it.
    """
    if not work_dir.is_dir():
        raise UsageError(f'there is no folder {work_dir.absolute()}: give the work dir of a training or a test')
    found = []
    for folder in sorted(path for path in work_dir.iterdir() if path.is_dir()):
        evaluations = [_record(folder / f'{kind}.json') for kind in ('val', 'test')]
        scalars = _lines(folder / 'vis_data/scalars.json')
        session = Session(folder, _record(folder / 'session.json'), scalars, [e for e in evaluations if e])
        if session.record or session.scalars or session.evaluations:
            found.append(session)
    if not found:
        here = sorted(path.name for path in work_dir.iterdir())[:5]
        raise UsageError(f'{work_dir} holds nothing of a training or a test, but {here}: give the work dir of one')
    return found


def _record(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError):  # there is none, or it is no longer whole
        return {}
    return content if isinstance(content, dict) and content.get('format') == FORMAT else {}


def _lines(path: Path) -> list[dict[str, Any]]:
    try:
        text = path.read_text(encoding='utf-8')
    except (OSError, ValueError):
        return []
    found = []
    for line in text.splitlines():
        try:
            values = json.loads(line)
        except ValueError:  # a line that a crash or a full disk has cut
            continue
        if isinstance(values, dict) and isinstance(values.get('step'), int):
            found.append({k: v for k, v in values.items() if isinstance(v, (int, float)) and not isinstance(v, bool)})
    return found


def joined(sessions: Sequence[Session]) -> tuple[dict[str, Curve], dict[str, Curve]]:
    """The curves of a training over all its sessions.

    A session that goes on from iteration N replaces what an earlier one had after N; one that begins anew replaces all.

    Returns:
        name -> curve, of what was logged while training, and of the validations' scores.
    """
    training: dict[str, Curve] = {}
    scores: dict[str, Curve] = {}
    for session in sessions:
        lines = _by_iteration(session.scalars)
        if not lines or session.record.get('kind') == 'test':
            continue
        first = min(at for at, _, _ in lines)
        start = session.record.get('start_iter', first - 1)
        for curves in (training, scores):
            for name, curve in curves.items():
                curves[name] = [point for point in curve if point[0] <= start]
        for at, values, trained in lines:
            for name, value in values.items():
                if trained or name not in NOT_SCORES:
                    (training if trained else scores).setdefault(name, []).append((at, float(value)))
    return tuple({name: curve for name, curve in curves.items() if curve} for curves in (training, scores))


def _by_iteration(lines: Sequence[dict[str, Any]]) -> list[tuple[int, dict[str, Any], bool]]:
    """(iteration, values, whether of training); a validation of a training by epochs says its epoch only."""
    epochs = any('epoch' in values for values in lines)
    found, last = [], 0
    for values in lines:
        trained = 'loss' in values or 'lr' in values
        last = values.get('iter', values['step']) if trained else last
        found.append((last if epochs else values['step'], values, trained))
    return found
