"""Python's audit hook around what checkpoints ask for; a script, as a hook cannot be taken off again.

`audited.py FOLDER CASES SEED` builds every type of `mmseg_volo.io.allowed` with every argument, loads that many records
at random, and prints as JSON what came out, and whatever was opened, imported, executed or asked for meanwhile.
"""

from __future__ import annotations

import json
import logging
import sys
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

# of Python itself, whatever is computed: looking at objects, and at functions of a library that is open already
HARMLESS = (
    'object.__',
    'sys._getframe',
    'gc.',
    'builtins.id',
    'cpython.',
    'code.__',
    'array.',
    'sys.unraisablehook',
    'ctypes.dlsym',
)


class Watch:
    """What the interpreter does meanwhile, of each kind of event its first argument."""

    def __init__(self) -> None:
        self.on, self.found, self.current = False, Counter(), ''
        self.allowed: set[str] = set()
        sys.addaudithook(self._hear)
        sys.meta_path.insert(0, self)  # importlib.import_module raises no event

    def _hear(self, event: str, arguments: tuple) -> None:
        if not self.on or event.startswith(HARMLESS):
            return
        about = arguments[0] if arguments else ''
        if (event == 'open' and str(about) in self.allowed) or (event, about) == ('ctypes.dlopen', None):
            return
        self.on = False
        self.found[f'{event} {about!r:.80} by {self.current:.200}'] += 1
        self.on = True

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        """Notes that a module is looked for, and leaves it to others."""
        if not name.startswith('mmcv.'):  # mmengine asks whether mmcv has its operators
            self._hear('find', (name,))

    def call(self, what: str, function: Callable, *arguments: Any, **more: Any) -> Any:
        """What a function returns, or the exception that it ends in."""
        self.current, self.on = what, True
        try:
            return function(*arguments, **more)
        except Exception as error:
            return error
        finally:
            self.on = False


if __name__ == '__main__':
    logging.disable(logging.INFO)  # mmengine's notes of what it builds
    warnings.simplefilter('ignore')  # Python reads the line that a warning is about
    from helpers.audited_parts import build_all
    from helpers.audited_records import load_all

    watch, folder, cases = Watch(), Path(sys.argv[1]).resolve(), int(sys.argv[2])
    said = {'parts': build_all(watch), 'records': load_all(watch, folder, cases, seed=int(sys.argv[3]))}
    print(json.dumps({**said, 'found': dict(watch.found.most_common(50))}))
