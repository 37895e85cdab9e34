"""What the README and the other pages say to type: every block is run, or read by the parser that it is meant for."""

from __future__ import annotations

import argparse
import ast
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import pytest
from helpers import folder_data, fresh
from helpers.model_files import save
from helpers.paths import ROOT

from mmseg_volo.autotrain.recipe import is_shipped
from mmseg_volo.cfg_options import parse
from mmseg_volo.cli.weights import _sources
from mmseg_volo.config import load_config
from mmseg_volo.datasets.synthetic import scenes
from mmseg_volo_cli import main

PAGES = {path.relative_to(ROOT).as_posix(): path.read_text() for path in (*ROOT.glob('*.md'), *ROOT.glob('*/*.md'))}
PAGES = {name: text for name, text in PAGES.items() if not name.startswith('.')}
FENCE = re.compile(r'^```(\w*)\n(.*?)^```$', re.M | re.S)
LANGUAGES = {'python': 'run', 'sh': 'read or run, line by line', 'bibtex': 'no code'}
COMMAND = re.compile(r'(\w+=\S+ )*(mmseg-volo |python (tools|benchmarks|examples)/\w|tools/\w+\.sh |pytest |make )')
NOT_READ = {  # what shell lines of ours begin with that nothing here can run or read, and why
    'git clone ': 'needs the network',
    'cd mmseg_volo': 'there is none without the line before',
    'source .venv/bin/activate': 'needs what make installs',
    'ln -s /path/to/cityscapes ': 'needs Cityscapes',
}
RUN = {('predict', None), ('weights', 'list'), ('weights', 'convert')}  # in full; the arguments of others are read
STAND_INS = {  # what is the user's in the pages: a small file in its place
    'work_dirs/NAME/best_mIoU_iter_4000.pth': 'work_dirs/volo_d4_cityscapes/iter_80000.pth',
    'configs/volo_d4_cityscapes.py': 'volo_d4_cityscapes',
    'examples/own_data.py': str(ROOT / 'examples/own_data.py'),
    'CONFIG': 'volo_demo',
    'CHECKPOINT': 'work_dirs/volo_d4_cityscapes/iter_80000.pth',
}

SMALL = ("'volo_d4_cityscapes'", "'volo_demo'")  # in Python: what that checkpoint is of, here


def blocks(language: str) -> Iterator[tuple[str, str]]:
    """(page:line, text) of every fenced block of a language."""
    for page, text in PAGES.items():
        for found in FENCE.finditer(text):
            if found[1] == language:
                yield f'{page}:{text.count(chr(10), 0, found.start()) + 1}', found[2]


def shell_lines() -> Iterator[tuple[str, str]]:
    """(page:line, command) of every command in a shell block."""
    for place, block in blocks('sh'):
        for line in re.sub(r'\\\n\s*', '', block).splitlines():
            words = ' '.join(shlex.quote(word) for word in shlex.split(line, comments=True))
            yield from ((place, command) for command in words.split(" '&&' ") if command)


def mentioned() -> Iterator[tuple[str, str]]:
    """(page or file, command) of what is in running text and in docstrings."""
    for page, text in PAGES.items():
        if page != 'CHANGELOG.md':
            yield from ((page, code) for code in re.findall(r'`([^`]+)`', FENCE.sub('', text)))
    for path in (p for folder in ('tools', 'benchmarks', 'examples', 'configs') for p in (ROOT / folder).glob('*.py')):
        docstring = ast.get_docstring(ast.parse(path.read_text())) or ''
        where = path.relative_to(ROOT).as_posix()
        for command in re.findall(r'^ *((?:python|mmseg-volo) .*?)(?: {2,}#.*)?$', docstring, re.M):
            yield where, command
        for command in re.findall(r'^(?:Command|Test): +(?:torchrun --nproc_per_node \d )?(tools/.*)', docstring, re.M):
            yield where, f'python {command}'


INLINE = {(where, ' '.join(code.split())) for where, code in mentioned()}
INLINE = {(w, c) for w, c in INLINE if COMMAND.match(c) and not re.search(r'\[|\||\.\.\.', c)}
COMMANDS = [*shell_lines(), *sorted(INLINE)]


@pytest.fixture(scope='module')
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a checkpoint and images under the names that the pages use."""
    folder = tmp_path_factory.mktemp('markdown')
    (folder / 'photos').mkdir()
    for name in ('street.jpg', 'photos/a.jpg'):
        cv2.imwrite(str(folder / name), scenes.scene(0, 64, 96)[0][..., ::-1])
    checkpoint, _ = save(load_config('volo_demo'), folder, folder / 'street.jpg')
    for name in ('volo_d4_cityscapes', 'X'):
        (folder / 'work_dirs' / name).mkdir(parents=True)
        shutil.copy(checkpoint, folder / 'work_dirs' / name / 'iter_80000.pth')
    folder_data.write(folder / 'FOLDER', 6)
    return folder


def test_every_block_has_a_rule() -> None:
    languages = {found[1] for text in PAGES.values() for found in FENCE.finditer(text)}
    assert languages <= LANGUAGES.keys(), 'say how blocks of this language are checked'
    for where, command in shell_lines():
        assert COMMAND.match(command) or command.startswith(tuple(NOT_READ)), f'{where}: what checks {command!r}?'
    assert all(any(command.startswith(start) for _, command in shell_lines()) for start in NOT_READ)
    assert len(PAGES) > 6 and [*blocks('python')] and len(INLINE) > 30


def test_flags_exist() -> None:
    """Every `--flag` that a page names is one of ours, of a command or of a script."""
    files = [
        path for folder in ('mmseg_volo', 'mmseg_volo_cli', 'benchmarks') for path in (ROOT / folder).rglob('*.py')
    ]
    known = set(re.findall(r"'(--[a-z][\w-]+)'", ''.join(path.read_text() for path in files)))
    known |= {f'--no-{flag[2:]}' for flag in known} | {'--nproc_per_node'}
    for page, text in PAGES.items():
        assert not set(re.findall(r'(?<![\w-])--[a-z][\w-]+', text)) - known, page


def test_python_blocks_run(place: Path) -> None:
    """Each as the first act of a process."""
    there = 'import os\nos.chdir(PLACE)\n'
    snippets = {where: block.replace(*SMALL) for where, block in blocks('python')}
    scripts = {where: block for where, block in snippets.items() if '__main__' in block}
    alone = {where: there + block for where, block in snippets.items() if where not in scripts}
    assert not fresh.failures(alone, place, PLACE=place)
    for where, block in scripts.items():
        (place / 'script.py').write_text(block)
        call = [sys.executable, 'script.py']
        ended = subprocess.run(
            call, cwd=place, env={**os.environ, 'PYTHONPATH': str(ROOT)}, capture_output=True, text=True, timeout=300
        )
        assert ended.returncode == 0, f'{where}: {ended.stderr}'


class Parsed(Exception):
    """Ends a script where it has read its arguments."""


def read(words: list[str], monkeypatch: pytest.MonkeyPatch) -> argparse.Namespace:
    """Has the script that a line calls read its arguments, and stops it there.

    Raises:
        SystemExit: they are wrong.
    """
    parse = argparse.ArgumentParser.parse_args

    def stop(self: argparse.ArgumentParser, args: list[str] | None = None, space: object = None) -> None:
        raise Parsed(parse(self, args, space))

    with monkeypatch.context() as patch, pytest.raises(Parsed) as end:
        patch.setattr(argparse.ArgumentParser, 'parse_args', stop)
        if words[0] == 'mmseg-volo':
            main(words[1:])
        script = ROOT / words[1]
        patch.setattr(sys, 'argv', words[1:])
        patch.syspath_prepend(str(script.parent))
        runpy.run_path(str(script), run_name='__main__')
    return end.value.args[0]


def as_command(words: list[str]) -> list[str]:
    """What `tools/dist_*.sh` calls in each process."""
    if not words[0].endswith('.sh'):
        return words
    assert (ROOT / words[0]).is_file()
    kind, before = ('test', 2) if 'test' in words[0] else ('train', 1)
    assert words[before + 1].isdecimal()
    return ['mmseg-volo', kind, *words[1 : before + 1], *words[before + 2 :]]


def check_names(args: argparse.Namespace) -> None:
    """Configs, options, models and weights that arguments name are there."""
    given = vars(args)
    if (config := given.get('config')) and 'WORK/' not in config:
        load_config(config, parse(given.get('cfg_options') or ()))
    if given.get('model'):
        is_shipped(args.model)
    if given.get('weights_command') == 'fetch':
        assert all(map(_sources, args.names))


@pytest.mark.parametrize('where, command', COMMANDS)
def test_commands(where: str, command: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if command.startswith(tuple(NOT_READ)):
        return
    monkeypatch.chdir(place)
    words = shlex.split(command)
    while re.match(r'\w+=', words[0]):
        words.pop(0)
    if words[0] == 'make':
        assert re.search(rf'^{words[1]}:', (ROOT / 'Makefile').read_text(), re.M)
    elif words[0] == 'pytest':
        for word in (w for w in words if w.startswith('tests/')):
            group = re.search(r'\{(.*)\}', word)
            files = [word.replace(group[0], name) for name in group[1].split(',')] if group else [word]
            assert all([*ROOT.glob(file)] for file in files), word
    elif words[0] == 'mmseg-volo' and len(words) == 2:  # its name alone
        with pytest.raises(SystemExit) as end:
            main([words[1], '--help'])
        assert end.value.code == 0
    else:
        check(as_command([STAND_INS.get(word, word) for word in words]), monkeypatch)


def check(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that takes arguments: they are read, their names looked up, and what is cheap is run."""
    args = read(words, monkeypatch)
    check_names(args)
    if (getattr(args, 'command', None), getattr(args, 'weights_command', None)) in RUN:
        assert main(words[1:] if words[0] == 'mmseg-volo' else [args.command, *words[2:]]) == 0
