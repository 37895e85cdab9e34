"""`mmseg-volo doctor`: what is here, what is wrong, and how to put it right.

It lies beside the package and imports nothing but Python's own at first: who calls it may have no torch, or a broken
one.
"""

from __future__ import annotations

import faulthandler
import sys
from collections.abc import Callable

from mmseg_volo_cli.doctor.machine import devices, system, trials
from mmseg_volo_cli.doctor.packages import versions
from mmseg_volo_cli.doctor.report import WRONG, Finding, Findings, harmless, words
from mmseg_volo_cli.doctor.storage import caches, data, writing

CHECKS = {
    'System': system,
    'Packages': versions,
    'Devices': devices,
    'Caches of weights': caches,
    'Data': data,
    'Write access': writing,
    'One training step': trials,
}


def doctor() -> int:
    """Looks at everything and prints what it finds as it goes.

    Returns:
        The exit status: 1 if something is broken.
    """
    faulthandler.enable(sys.__stderr__)  # a library that takes Python down with it is named
    wrong = 0
    for title, check in CHECKS.items():
        print(title, flush=True)
        for state, said, remedy in _found(check):
            wrong += state == WRONG
            print(f'  {state:5}  {harmless(said)}', flush=True)
            if remedy:
                print(f'         -> {harmless(remedy)}', flush=True)
    print(f'{wrong} problem{"s" * (wrong > 1)}, see WRONG above' if wrong else 'Nothing is broken.')
    return int(wrong > 0)


def _found(check: Callable[[], Findings]) -> Findings:
    try:
        yield from check()
    except Exception as error:  # a report goes on: the next check may say why
        yield Finding(WRONG, f'this could not be looked at: {words(error)}')
