"""Run `mmseg-volo doctor`: report versions, devices, caches and a training step, what is wrong and how to fix it.

The module imports only the standard library until a check needs more: torch may be missing or broken.
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
    """Run all checks and print each finding as it comes.

    Returns:
        The exit status: 1 if something is broken.
    """
    if sys.__stderr__ is not None:
        faulthandler.enable(sys.__stderr__)  # shows which library crashed if one takes Python down
    wrong = 0
    for title, check in CHECKS.items():
        print(title, flush=True)
        for state, message, remedy in _findings(check):
            wrong += state == WRONG
            print(f'  {state:5}  {harmless(message)}', flush=True)
            if remedy:
                print(f'         -> {harmless(remedy)}', flush=True)
    print(f'{wrong} problem{"s" * (wrong > 1)}, see WRONG above' if wrong else 'Nothing is broken.')
    return int(wrong > 0)


def _findings(check: Callable[[], Findings]) -> Findings:
    try:
        yield from check()
    except Exception as error:  # the report continues: the next check may explain it
        yield Finding(WRONG, f'this check failed: {words(error)}')
