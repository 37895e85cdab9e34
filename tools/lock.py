#!/usr/bin/env python3
"""Write requirements.lock, sbom.json and docs/licences.md from the environment that runs this script.

For the packages of the default install: versions with file hashes, a bill of materials (CycloneDX), and a table of
licences, for Linux on x86-64 and this Python. Run it after the tests, with the Python that ran them:

    .venv/bin/python tools/lock.py
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PYTHON = f'{sys.version_info.major}.{sys.version_info.minor}'
TOOLS = ('uv', 'cyclonedx-bom', 'pip-licenses')
RESOLVE = f"""pip compile -q --python-version {PYTHON} --python-platform x86_64-manylinux_2_28 --generate-hashes
    --no-header --no-annotate --no-emit-index-url --no-emit-find-links --index-strategy unsafe-best-match"""
LOCK = f"""# Linux x86-64, Python {PYTHON}, written by tools/lock.py:
#     pip install --require-hashes -r requirements.lock && pip install --no-deps .
"""
LICENCES = """# Licences of what the default install brings

As each package states it, read by `pip-licenses`; versions are those of `requirements.lock`. CUDA's libraries come with
torch's builds for Linux only. Written by `tools/lock.py`.

| Package | Version | Licence |
| --- | --- | --- |
"""
KNOWN = re.compile(r'Apache License\s+Version 2\.0')  # for packages that state the full text


def main() -> int:
    """Write the three files."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter).parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        venv.create(folder / 'venv', with_pip=True)
        tools = folder / 'venv/bin'
        run(tools / 'pip', 'install', '-q', '--disable-pip-version-check', *TOOLS)
        tested, lock, bill = (folder / name for name in ('tested.txt', 'requirements.lock', 'sbom.json'))
        tested.write_text(run(sys.executable, '-m', 'pip', 'freeze', '--exclude-editable'))
        run(tools / 'uv', *RESOLVE.split(), '--constraint', tested, '-o', lock, ROOT / 'requirements.txt')
        names = re.findall(r'^([\w.-]+)==', lock.read_text(), re.M)
        options = ('--python', sys.executable, '--from=mixed', '--with-system', '--with-urls', '--format=json')
        packages = json.loads(run(tools / 'pip-licenses', *options, '--packages', *names))
        licences = {plain(package['Name']): licence(package['License']) for package in packages}
        run(tools / 'cyclonedx-py', 'requirements', '--output-reproducible', '--of', 'JSON', '-o', bill, lock)
        (ROOT / 'requirements.lock').write_text(LOCK + lock.read_text())
        (ROOT / 'sbom.json').write_text(json.dumps(with_licences(json.loads(bill.read_text()), licences), indent=1))
    rows = [f'| [{p["Name"]}]({p["URL"]}) | {p["Version"]} | {licences[plain(p["Name"])]} |' for p in packages]
    (ROOT / 'docs/licences.md').write_text(LICENCES + '\n'.join(rows) + '\n')
    return 0


def run(*command: str | Path) -> str:
    """Run a command in the project's root and return its output."""
    return subprocess.run([*map(str, command)], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


def plain(name: str) -> str:
    """Normalise the name of a package (PEP 503)."""
    return re.sub(r'[-_.]+', '-', name).lower()


def licence(text: str) -> str:
    """Return the licence that a package states, in one line."""
    return 'Apache-2.0' if KNOWN.search(text) else ' '.join(text.split()).replace('UNKNOWN', 'not stated')


def with_licences(bill: dict[str, Any], licences: dict[str, str]) -> dict[str, Any]:
    """Add licences to a bill of materials, and remove the descriptions, which quote lines of the lock file."""
    for component in bill['components']:
        component.pop('description', None)
        if name := licences.get(plain(component['name'])):
            component['licenses'] = [dict(license=dict(name=name))]
    return bill


if __name__ == '__main__':
    sys.exit(main())
