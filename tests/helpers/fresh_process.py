"""What `fresh.py` starts: it imports `mmseg_volo`, and is copied (os.fork) for every snippet that stdin holds."""

from __future__ import annotations

import contextlib
import gc
import importlib
import io
import json
import os
import signal
import sys
import tempfile
import traceback
from typing import Any

SECONDS = 120  # for a snippet


def run(name: str, source: str, names: dict[str, str]) -> str:
    """Runs a snippet in a copy of this process and an empty folder; '' or what it said before it failed."""
    with tempfile.TemporaryFile('w+') as said, tempfile.TemporaryDirectory(dir='.') as folder:
        child = os.fork()
        if child == 0:
            os.dup2(said.fileno(), 1)
            os.dup2(said.fileno(), 2)
            os.chdir(folder)
            signal.alarm(SECONDS)
            try:
                exec(compile(source, name, 'exec'), {'__name__': '__main__', **names})
                status = 0
            except BaseException as error:
                traceback.print_exc()
                status = error.code if isinstance(error, SystemExit) and isinstance(error.code, int) else 1
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(min(status, 255))
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        said.seek(0)
        return f'status {status}: {said.read()[-3000:]}' if status else ''


def main() -> None:
    """Reads what to run, and prints what failed."""
    given: dict[str, Any] = json.load(sys.stdin)
    with contextlib.redirect_stdout(io.StringIO()):  # mmseg prints what it lacks
        import mmseg_volo  # noqa: F401

        for module in given['preload']:
            importlib.import_module(module)
    gc.collect()
    gc.freeze()  # else every copy's first collection copies all pages
    registering = {
        f'mmseg_volo.{part}'
        for part in ('register_all', 'models.segmentors', 'models.decode_heads', 'engine', 'datasets')
    }
    assert registering.isdisjoint(sys.modules), 'importing mmseg_volo brings more than it says'
    assert given['preload'] or 'mmseg' not in sys.modules
    print(json.dumps({name: run(name, source, given['names']) for name, source in given['snippets'].items()}))


if __name__ == '__main__':
    main()
