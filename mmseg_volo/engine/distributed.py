"""Processes of a job, started by torchrun, Slurm or MPI: how they join without a GPU, and when they end."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from threading import Thread
from threading import enumerate as enumerate_threads

import torch.distributed
from torch.utils.data._utils.worker import ManagerWatchdog

from mmseg_volo.errors import LAUNCHED, UsageError
from mmseg_volo.redaction import redact_argv
from mmseg_volo.utils.forks import about_to_compute

try:
    import resource
except ImportError:  # Windows
    resource = None

VARIABLES = {  # of each launcher: a process's rank, how many there are, its rank on its machine
    'pytorch': ('RANK', 'WORLD_SIZE', 'LOCAL_RANK'),
    'slurm': ('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_LOCALID'),
    'mpi': ('OMPI_COMM_WORLD_RANK', 'OMPI_COMM_WORLD_SIZE', 'OMPI_COMM_WORLD_LOCAL_RANK'),
}
TORCHRUN = 'TORCHELASTIC_RUN_ID'  # set in processes of torchrun
WATCH = 'launcher'  # thread
LOOK = 0.5  # seconds between two looks at the launcher
GRACE = 3.0  # seconds for a checkpoint, once the launcher is gone; data workers then take up to 5 more


def begin(launcher: str) -> None:
    """What a process of a job does first; see `about_to_compute`, `end_with_launcher`.

    Each image that a data worker hands over is an open file: as many as the system lets us have may be open.
    """
    about_to_compute()
    if resource is not None:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    end_with_launcher(launcher)


def end_with_launcher(launcher: str, parent: int | None = None) -> None:
    """From now on this process ends soon after torchrun, or `launch.py`, which has started it: when that is killed
    nobody else ends it. A training is asked to stop, as by SIGTERM, and is ended if it has not within GRACE.

    Processes of Slurm and MPI are ended by these, and one that was started alone outlives the shell that did.

    Args:
        launcher: 'none', 'pytorch', 'slurm' or 'mpi'.
        parent: the process that was above this one when it began; the one that is now if None.
    """
    watched = any(thread.name == WATCH for thread in enumerate_threads())
    if launcher == 'pytorch' and not watched and {LAUNCHED, TORCHRUN} & os.environ.keys():
        Thread(target=_end_after, args=(parent, ManagerWatchdog()), name=WATCH, daemon=True).start()


def _end_after(parent: int | None, watchdog: ManagerWatchdog) -> None:
    while watchdog.is_alive() and parent in (None, watchdog.manager_pid):  # else it was gone before we looked
        time.sleep(LOOK)
    with suppress(OSError):
        print('error: the launcher was killed, so its processes end', file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE)
    os._exit(128 + signal.SIGTERM)


def join_on_cpu(launcher: str, timeout: float | None = None) -> None:
    """Joins the processes of a job by gloo; mmengine's `init_dist` asks for CUDA.

    Args:
        launcher: 'pytorch', 'slurm' or 'mpi'.
        timeout: seconds that a process waits for the others; torch's own if None.

    Raises:
        UsageError: the launcher's variables are not set.
    """
    if launcher != 'pytorch':
        theirs = VARIABLES[launcher]
        if absent := [name for name in theirs if name not in os.environ]:
            raise UsageError(f'--launcher {launcher}: {", ".join(absent)} is not set; start this by srun or mpirun')
        os.environ.update(zip(VARIABLES['pytorch'], (os.environ[name] for name in theirs), strict=True))
        os.environ.setdefault('MASTER_PORT', '29500')  # mmengine's default too
        if 'MASTER_ADDR' not in os.environ:
            os.environ['MASTER_ADDR'] = first_host(launcher)
    torch.distributed.init_process_group('gloo', timeout=None if timeout is None else timedelta(seconds=timeout))


def first_host(launcher: str) -> str:
    """The machine of process 0, as Slurm says it.

    Raises:
        UsageError: it cannot be found out.
    """
    try:
        command = ['scontrol', 'show', 'hostnames', os.environ['SLURM_NODELIST']]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[0]
    except (OSError, KeyError, IndexError, subprocess.CalledProcessError) as error:
        raise UsageError(f'--launcher {launcher}: set MASTER_ADDR to the machine of the first process') from error


def is_first(launcher: str) -> bool:
    """Whether this is the first process of a job, by its launcher's variables: before they have joined.

    Args:
        launcher: 'none', 'pytorch', 'slurm' or 'mpi'.
    """
    return launcher == 'none' or os.environ.get(VARIABLES[launcher][0], '0') == '0'


def world_size_of(launcher: str) -> int:
    """How many processes a job has, by its launcher's variables: before they have joined.

    Args:
        launcher: 'none', 'pytorch', 'slurm' or 'mpi'.
    """
    return 1 if launcher == 'none' else int(os.environ.get(VARIABLES[launcher][1], 1))


def command_line(argv: Sequence[str]) -> str:
    """The shell's command that starts the same again, on as many processes of this machine, without secrets.

    Args:
        argv: of `mmseg_volo_cli.main`.
    """
    if LAUNCHED in os.environ:  # by `launch.py`, which adds these two
        return shlex.join(
            ['python', '-m', 'mmseg_volo.launch', os.environ.get('WORLD_SIZE', '1'), *redact_argv(argv[:-2])]
        )
    return shlex.join(['mmseg-volo', *redact_argv(argv)])
