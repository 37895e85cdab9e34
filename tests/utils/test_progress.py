"""Lines in files, bars on terminals, and the log between them."""

from __future__ import annotations

import io
import logging
import re
from types import SimpleNamespace

import pytest

from mmseg_volo.engine.hooks import progress as hooks
from mmseg_volo.engine.hooks.progress import ProgressHook
from mmseg_volo.utils import progress
from mmseg_volo.utils.progress import ProgressBar


class Terminal(io.StringIO):
    """A terminal, as far as a program can tell."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """tqdm's and our time, which passes when told to."""
    clock = SimpleNamespace(now=1000.0)
    time = lambda: clock.now  # noqa: E731
    monkeypatch.setattr('tqdm.std.time', time)
    monkeypatch.setattr(progress.time, 'time', time)
    return clock


def steps(bar: ProgressBar, clock: SimpleNamespace, seconds: float) -> None:
    for _ in bar:
        clock.now += seconds


def test_lines_where_there_is_no_terminal(clock: SimpleNamespace, capsys: pytest.CaptureFixture) -> None:
    steps(ProgressBar(range(40), 'looking', unit='image'), clock, 0.5)
    said = capsys.readouterr().err
    assert '\r' not in said and [line.split(',')[0] for line in said.splitlines()] == [
        'looking: 4/40',  # after two seconds
        'looking: 24/40',  # and ten more
        'looking: 40/40',
    ]
    assert said.splitlines()[1] == 'looking: 24/40,  2.00 image/s, 00:08 left'
    steps(ProgressBar(range(3), 'looking'), clock, 0.5)
    assert not capsys.readouterr().err  # it took less than two
    steps(ProgressBar(range(3), 'looking', delay=0), clock, 0.5)
    assert 'looking: 3/3' in capsys.readouterr().err
    with ProgressBar(desc='x.pth', unit='B', unit_scale=True, unit_divisor=1024) as bar:
        clock.now += 4
        bar.update(8 * 2**20)
    assert capsys.readouterr().err == 'x.pth: 8.00M, 2.10M B/s\n'
    steps(ProgressBar(range(9), 'hidden', disable=True), clock, 5)
    assert not capsys.readouterr().err


def test_an_interrupted_loop_counts_what_was_done(clock: SimpleNamespace, capsys: pytest.CaptureFixture) -> None:
    for i in (bar := ProgressBar(range(9), 'looking', unit='image')):
        clock.now += 1
        if i == 4:
            break
    bar.close()
    assert capsys.readouterr().err.splitlines()[-1].startswith('looking: 4/9')


def test_a_bar_on_a_terminal(clock: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('sys.stderr', terminal := Terminal())
    steps(ProgressBar(range(10), 'looking', unit='image', leave=False), clock, 1.0)
    said = terminal.getvalue()
    assert re.search(r'\rlooking: +50%.* 5/10 \[00:05<00:05,  1.00image/s\]', said) and '\n' not in said
    assert not said.split('\r')[-2].strip()  # cleared


@pytest.mark.parametrize('tty', [True, False])
def test_the_log_and_the_bar_make_room_for_one_another(
    clock: SimpleNamespace, tty: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr('sys.stderr', screen := (Terminal if tty else io.StringIO)())
    logger = logging.Logger('test')
    logger.addHandler(handler := logging.StreamHandler(screen))
    loader = SimpleNamespace(dataset=range(4))
    runner = SimpleNamespace(logger=logger, max_iters=100, iter=10, world_size=2, val_dataloader=loader)
    hook = ProgressHook()
    hook.before_train(runner)
    for i in range(40):
        clock.now += 3
        hook.after_train_iter(runner, i)
        if i == 15:
            logger.info('a line')
            assert screen.getvalue().endswith('a line\n')
    hook.before_val_epoch(runner)
    for i in range(2):
        clock.now += 50
        hook.after_val_iter(runner, i, outputs=[1])
    hook.after_val_epoch(runner)
    hook.after_train_iter(runner, 40)
    hook.after_train(runner)
    assert not handler.filters
    said = screen.getvalue()
    assert 'validating' in said and '4/4' in said
    if tty:
        before = said[: said.index('a line')]
        assert before.endswith('\r') and not before.split('\r')[-2].strip()  # the bar was cleared
        assert len(re.findall('training', said)) > 30
    else:
        lines = [line for line in said.splitlines() if 'training' in line]
        seconds = [3 * (int(re.search(r'(\d+)/100', line)[1]) - 10) for line in lines]
        assert seconds == [3, 33, 48 + hooks.PAUSE, 108]
        assert lines[-1].endswith('02:42 left')
