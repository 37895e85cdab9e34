"""requirements.lock, sbom.json and docs/licences.md, which `tools/lock.py` writes, are of requirements.txt."""

from __future__ import annotations

import json
import re

from helpers.paths import ROOT
from packaging.requirements import Requirement

LOCK = (ROOT / 'requirements.lock').read_text()
PINNED = {name.replace('_', '-'): version for name, version in re.findall(r'^([\w.-]+)==(\S+)', LOCK, re.M)}


def test_every_requirement_is_locked_within_its_bounds() -> None:
    for line in (ROOT / 'requirements.txt').read_text().splitlines():
        wanted = Requirement(line)
        assert wanted.specifier.contains(PINNED[wanted.name.replace('_', '-')]), line


def test_every_locked_package_has_hashes() -> None:
    blocks = re.split(r'\n(?=[\w.-]+==)', LOCK.partition('\n\n')[0].split('\n', 2)[2])
    assert len(blocks) == len(PINNED) > 60
    assert all('--hash=sha256:' in block for block in blocks)


def test_the_bill_of_materials_and_the_licences_are_of_the_lock() -> None:
    bill = json.loads((ROOT / 'sbom.json').read_text())
    assert bill['bomFormat'] == 'CycloneDX'
    assert {part['name']: part['version'] for part in bill['components']} == PINNED
    table = re.findall(r'^\| \[(.+?)\]\(\S+\) \| (\S+) \| (.+) \|$', (ROOT / 'docs/licences.md').read_text(), re.M)
    listed = {name.replace('_', '-').lower(): version for name, version, licence in table if licence}
    assert listed.items() <= PINNED.items() and {'torch', 'onedl-mmsegmentation', 'numpy'} <= listed.keys()
    assert PINNED.keys() - listed.keys() <= {'colorama'}
