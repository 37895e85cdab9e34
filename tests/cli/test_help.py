"""Every script and every command answers `--help` and unknown arguments without doing anything."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import fresh
from helpers.paths import ROOT

from mmseg_volo_cli import main
from mmseg_volo_cli.parser import build_parser

FILES = sorted(path for folder in ('tools', 'benchmarks', 'examples') for path in (ROOT / folder).glob('*.py'))
NO_SCRIPTS = {  # what is imported or read, and has nothing to be asked
    'benchmarks/measure.py': 'what the benchmarks share',
    'examples/new_backbone.py': 'a module that examples/train_new_backbone.py imports',
    'examples/own_data.py': 'a config',
}
SCRIPTS = {path.relative_to(ROOT).as_posix(): path for path in FILES}
assert NO_SCRIPTS.keys() <= SCRIPTS.keys()
SCRIPTS = {name: path for name, path in SCRIPTS.items() if name not in NO_SCRIPTS}
SHELL = sorted((ROOT / 'tools').glob('*.sh'))
RUN = """
import contextlib, io, os, runpy, sys
sys.path.insert(0, os.path.dirname({path!r}))
sys.argv = [{path!r}, {argument!r}]
said = io.StringIO()
try:
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        runpy.run_path({path!r}, run_name='__main__')
    status = 'none: it went to work'
except SystemExit as end:
    status = end.code or 0
assert status == {status}, (status, said.getvalue())
assert 'usage: ' in said.getvalue(), said.getvalue()
assert not os.listdir(), os.listdir()
"""


def state() -> dict[Path, int]:
    """When each file that a script might write was changed."""
    places = [ROOT, *(ROOT / name for name in ('docs', 'configs', 'benchmarks', 'benchmarks/results', 'data'))]
    return {path: path.stat().st_mtime_ns for place in places for path in place.glob('*') if path.is_file()}


def test_what_is_no_script_is_none() -> None:
    assert SCRIPTS and SHELL
    for path in FILES:
        is_script = "__name__ == '__main__'" in path.read_text()
        assert is_script == (path.relative_to(ROOT).as_posix() in SCRIPTS), path


def test_scripts_help_and_do_nothing(tmp_path: Path) -> None:
    before = state()
    snippets = {
        f'{name} {argument}': RUN.format(path=str(path), argument=argument, status=status)
        for name, path in SCRIPTS.items()
        for argument, status in (('--help', 0), ('--no-such-argument', 2))
    }
    assert not fresh.failures(snippets, tmp_path, [*fresh.MMSEG, 'mmpretrain'])
    assert state() == before


@pytest.mark.parametrize('path', SHELL, ids=lambda path: path.name)
def test_shell_scripts_help_and_do_nothing(path: Path, tmp_path: Path) -> None:
    for arguments, status in ((['--help'], 0), (['-h'], 0), ([], 2)):
        done = subprocess.run(['sh', str(path), *arguments], capture_output=True, text=True, cwd=tmp_path, timeout=20)
        assert done.returncode == status
        assert (done.stderr if status else done.stdout).startswith(f'usage: {path}')


def commands(of: argparse.ArgumentParser, *above: str) -> Iterator[list[str]]:
    """Every command and command of a command, from the parser itself."""
    yield [*above]
    for action in of._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, inner in action.choices.items():
                yield from commands(inner, *above, name)


COMMANDS = [*commands(build_parser())]


@pytest.mark.parametrize('command', COMMANDS, ids=' '.join)
def test_commands_help_and_do_nothing(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    named = ' '.join(['mmseg-volo', *command])
    for argument, status in (('--help', 0), ('--no-such-argument', 2)):
        with pytest.raises(SystemExit) as end:
            main([*command, argument])
        said = capsys.readouterr()
        assert end.value.code == status and f'usage: {named if status == 0 else "mmseg-volo"}' in said.out + said.err
    assert not [*tmp_path.iterdir()]


def test_help_needs_no_torch() -> None:
    program = (
        "import sys, mmseg_volo_cli\ntry:\n    mmseg_volo_cli.main(['train', '--help'])\nexcept SystemExit:\n    pass\n"
    )
    program += "assert not {'torch', 'mmengine', 'numpy'} & sys.modules.keys()"
    subprocess.run([sys.executable, '-c', program], check=True, cwd=ROOT, capture_output=True)


@pytest.mark.parametrize('arguments', [['-m', 'mmseg_volo_cli', '--help'], ['-c', 'import mmseg_volo_cli.doctor']])
def test_the_command_line_imports_no_torch(arguments: list[str]) -> None:
    command = [sys.executable, '-X', 'importtime', *arguments]
    done = subprocess.run(command, check=True, cwd=ROOT, capture_output=True, text=True, timeout=60)
    imported = {line.rpartition('|')[2].strip() for line in done.stderr.splitlines()}
    assert 'mmseg_volo_cli.parser' in imported
    assert not {'torch', 'numpy', 'mmengine', 'mmseg', 'mmseg_volo', 'packaging'} & imported


def test_all_commands_are_here() -> None:
    assert [] in COMMANDS and ['doctor'] in COMMANDS and ['weights', 'convert'] in COMMANDS and len(COMMANDS) >= 13


def test_former_names_work_and_are_hidden() -> None:
    parser = build_parser()
    assert parser.parse_args(['demo', 'a.pth']) == parser.parse_args(['app', 'a.pth'])
    predict = ['predict', 'a.pth', 'a.png', '--out', 'out']
    assert parser.parse_args(predict).window_size is None and not parser.parse_args(predict).video_masks_as_png
    new = parser.parse_args([*predict, '--window-size', '64', '--video-masks-as-png'])
    assert new == parser.parse_args([*predict, '--windows', '64', '--frames'])
    assert new.window_size == 64 and new.video_masks_as_png
    (subparsers,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    shown = parser.format_help() + subparsers.choices['predict'].format_help()
    assert '--window-size PIXELS' in shown and '--video-masks-as-png' in shown and '    app ' in shown
    assert '--windows' not in shown and '--frames' not in shown and 'demo' not in shown


def test_the_launcher_helps(capsys: pytest.CaptureFixture) -> None:
    from mmseg_volo import launch

    assert launch.main(['--help']) == 0 and 'usage: python -m mmseg_volo.launch GPUS' in capsys.readouterr().out
    assert launch.main([]) == 2
