"""Read the sessions of a work dir, one per start of a training or test, and join the curves of resumed trainings."""

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
    """Files of one start of a command."""

    folder: Path  # WORK_DIR/TIME
    record: dict[str, Any]  # session.json of `RecordHook`; empty if there is none
    scalars: list[dict[str, Any]]  # lines of mmengine's scalars.json
    evaluations: list[dict[str, Any]]


def read_sessions(work_dir: Path) -> list[Session]:
    """Read the sessions of a work dir, the oldest first.

    Raises:
        UsageError: there is no such folder, or it holds no session.
    """
    if not work_dir.is_dir():
        raise UsageError(f'there is no folder {work_dir.absolute()}: give the work dir of a training or a test')
    sessions = []
    for folder in sorted(path for path in work_dir.iterdir() if path.is_dir()):
        evaluations = [_record(folder / f'{kind}.json') for kind in ('val', 'test')]
        scalars = _lines(folder / 'vis_data/scalars.json')
        session = Session(folder, _record(folder / 'session.json'), scalars, [e for e in evaluations if e])
        if session.record or session.scalars or session.evaluations:
            sessions.append(session)
    if not sessions:
        names = sorted(path.name for path in work_dir.iterdir())[:5]
        raise UsageError(f'{work_dir} holds no training or test, but {names}: give the work dir of one')
    return sessions


def _record(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError):  # no such file, or a damaged one
        return {}
    return content if isinstance(content, dict) and content.get('format') == FORMAT else {}


def _lines(path: Path) -> list[dict[str, Any]]:
    try:
        text = path.read_text(encoding='utf-8')
    except (OSError, ValueError):
        return []
    records = []
    for line in text.splitlines():
        try:
            values = json.loads(line)
        except ValueError:  # truncated by a crash or a full disk
            continue
        if isinstance(values, dict) and isinstance(values.get('step'), int):
            records.append({k: v for k, v in values.items() if isinstance(v, (int, float)) and not isinstance(v, bool)})
    return records


def joined(sessions: Sequence[Session]) -> tuple[dict[str, Curve], dict[str, Curve]]:
    """Join the curves of a training over all its sessions.

    A session resumed at iteration N replaces what earlier ones logged after N; one that starts anew replaces all.

    Returns:
        name -> curve, of the values logged in training, and of the validation scores.
    """
    training: dict[str, Curve] = {}
    scores: dict[str, Curve] = {}
    for session in sessions:
        lines = _by_iteration(session.scalars)
        if not lines or session.record.get('kind') == 'test':
            continue
        first = min(iteration for iteration, _, _ in lines)
        start = session.record.get('start_iter', first - 1)
        for curves in (training, scores):
            for name, curve in curves.items():
                curves[name] = [point for point in curve if point[0] <= start]
        for iteration, values, trained in lines:
            for name, value in values.items():
                if trained or name not in NOT_SCORES:
                    (training if trained else scores).setdefault(name, []).append((iteration, float(value)))
    return _without_empty(training), _without_empty(scores)


def _without_empty(curves: dict[str, Curve]) -> dict[str, Curve]:
    return {name: curve for name, curve in curves.items() if curve}


def _by_iteration(lines: Sequence[dict[str, Any]]) -> list[tuple[int, dict[str, Any], bool]]:
    """Return (iteration, values, whether logged in training); a validation by epochs holds only its epoch."""
    epochs = any('epoch' in values for values in lines)
    rows, last = [], 0
    for values in lines:
        trained = 'loss' in values or 'lr' in values
        last = values.get('iter', values['step']) if trained else last
        rows.append((last if epochs else values['step'], values, trained))
    return rows
