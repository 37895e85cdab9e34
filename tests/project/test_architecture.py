"""docs/architecture.md names what exists, and its layers are those that `make lint` checks."""

from __future__ import annotations

import ast
import re

from helpers.paths import ROOT

PAGE = (ROOT / 'docs/architecture.md').read_text()
OURS = re.compile(r'(?:mmseg_volo|mmseg_volo_cli|tests|tools|benchmarks)/[\w/.]*')


def names_of(path: str) -> set[str]:
    """What a module or a package defines or imports at its top level."""
    tree = ast.parse((ROOT / path).read_text())
    names = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    assigned = (target for node in tree.body if isinstance(node, ast.Assign) for target in node.targets)
    return names | {target.id for target in assigned if isinstance(target, ast.Name)}


def test_paths_exist() -> None:
    paths = {path.rstrip('.') for path in re.findall(r'`([^`\s]+)`', PAGE) if OURS.fullmatch(path)}
    assert len(paths) > 50
    assert [path for path in sorted(paths) if not (ROOT / path).exists()] == []


def test_names_are_in_the_files_that_are_named_beside_them() -> None:
    text = ' '.join(PAGE.split())
    pairs = re.findall(r'((?:`\w+`(?:, | and | or )?)+) in `(mmseg_volo[\w/]*\.py)`', text)
    assert len(pairs) > 30
    for names, path in pairs:
        assert {*re.findall(r'`(\w+)`', names)} <= names_of(path), path


def test_layers_are_the_contracts() -> None:
    rows = re.findall(r'^\| \d \| (.+?) \|', PAGE, re.M)
    shown = [re.findall(r'`(\w+)`', row) for row in rows]
    (layers,) = re.findall(r'^layers = \[(.*?)^\]', (ROOT / 'pyproject.toml').read_text(), re.M | re.S)
    checked = [re.findall(r'\w+', line) for line in re.findall(r'"(.+?)"', layers)]
    assert shown == [[name for name in line if name not in ('__main__', 'parts')] for line in checked]
