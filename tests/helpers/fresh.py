"""Snippets of Python, each as the first act of a process in which only `mmseg_volo` was imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from helpers.paths import ROOT, TESTS

MMSEG = ('mmseg.datasets', 'mmseg.models', 'mmseg.evaluation', 'mmseg.apis', 'timm')  # what takes time to import


def failures(snippets: Mapping[str, str], cwd: Path, preload: Sequence[str] = (), **names: object) -> dict[str, str]:
    """Runs snippets, each in a copy of a process and in an empty folder, without network and GPU.

    Args:
        snippets: name -> source.
        cwd: the folders are made in it.
        preload: modules of others that are imported before, as each would take its seconds in every snippet.
        names: what snippets know, paths as strings.

    Returns:
        Name -> what was printed, of those that failed.
    """
    given = dict(preload=[*preload], names={k: str(v) for k, v in names.items()}, snippets=dict(snippets))
    switches = {'MMSEG_VOLO_OFFLINE': '1', 'HF_HUB_OFFLINE': '1', 'CUDA_VISIBLE_DEVICES': '', 'OMP_NUM_THREADS': '1'}
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get('PYTHONPATH')])])
    done = subprocess.run(
        [sys.executable, str(TESTS / 'helpers/fresh_process.py')],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, **switches, 'PYTHONPATH': path},
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return {name: said for name, said in json.loads(done.stdout.splitlines()[-1]).items() if said}
