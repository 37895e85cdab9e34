"""Damaged files of all kinds, through what reads them: pixels or one of our errors, in bounded memory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.paths import environment

pytest.importorskip('resource', reason='limits of memory are POSIX')
CASES = int(os.environ.get('FUZZ_CASES', 500)) // 20


def test_damaged_files_end_in_one_of_our_errors(tmp_path: Path) -> None:
    """In a process of its own, as decoders may end it."""
    command = [sys.executable, '-m', 'helpers.fuzz_files', str(tmp_path), str(CASES), '0']
    run = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=600)
    print(run.stdout)
    assert run.returncode == 0, run.stderr[-2000:]
