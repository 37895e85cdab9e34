"""Join the processes of a job without a GPU, and end them with their launcher: torchrun, Slurm or MPI."""

from __future__ import annotations

import logging
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
from mmengine.device import get_device
from mmengine.model import convert_sync_batchnorm, revert_sync_batchnorm
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data._utils.worker import ManagerWatchdog

from mmseg_volo.errors import LAUNCHED, UsageError
from mmseg_volo.redaction import redact_argv
from mmseg_volo.utils.forks import about_to_compute

VARIABLES = {  # of each launcher: global rank, world size, local rank
    'pytorch': ('RANK', 'WORLD_SIZE', 'LOCAL_RANK'),
    'slurm': ('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_LOCALID'),
    'mpi': ('OMPI_COMM_WORLD_RANK', 'OMPI_COMM_WORLD_SIZE', 'OMPI_COMM_WORLD_LOCAL_RANK'),
}
TORCHRUN = 'TORCHELASTIC_RUN_ID'  # set in processes of torchrun
WATCH = 'launcher'  # name of the thread
INTERVAL = 0.5  # seconds between two checks of the launcher
GRACE = 3.0  # seconds for a checkpoint once the launcher is gone; data workers then take up to 5 more


def begin(launcher: str) -> None:
    """Prepare a process of a job; see `about_to_compute`, `end_with_launcher`.

    Each image that a data worker passes on is an open file, so the limit of open files is raised to the hard limit.
    """
    about_to_compute()
    with suppress(ImportError, OSError, ValueError):  # Windows has no `resource`
        import resource

        resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    end_with_launcher(launcher)


def end_with_launcher(launcher: str, parent: int | None = None) -> None:
    """End this process soon after torchrun, or `launch.py`, that started it: if that is killed, nothing else does.

    A training is asked to stop by SIGTERM, and is ended if it has not within GRACE. Slurm and MPI end their processes
    themselves, and a process started alone outlives its shell.

    Args:
        launcher: 'none', 'pytorch', 'slurm' or 'mpi'.
        parent: id of the parent process at the start; the current one if None.
    """
    watched = any(thread.name == WATCH for thread in enumerate_threads())
    if launcher == 'pytorch' and not watched and {LAUNCHED, TORCHRUN} & os.environ.keys():
        Thread(target=_end_after, args=(parent, ManagerWatchdog()), name=WATCH, daemon=True).start()


def _end_after(parent: int | None, watchdog: ManagerWatchdog) -> None:
    while watchdog.is_alive() and parent in (
        None,
        watchdog.manager_pid,
    ):  # else the launcher died before the first check
        time.sleep(INTERVAL)
    with suppress(OSError):
        print('error: the launcher was killed, so its processes end', file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE)
    os._exit(128 + signal.SIGTERM)


def join_on_cpu(launcher: str, timeout: float | None = None) -> None:
    """Join the processes of a job by gloo; mmengine's `init_dist` needs CUDA.

    Args:
        launcher: 'pytorch', 'slurm' or 'mpi'.
        timeout: seconds that a process waits for the others; torch's default if None.

    Raises:
        UsageError: the launcher's variables are not set.
    """
    if launcher != 'pytorch':
        names = VARIABLES[launcher]
        if absent := [name for name in names if name not in os.environ]:
            raise UsageError(
                f'--launcher {launcher}: {", ".join(absent)} is not set: start this command by srun or mpirun'
            )
        os.environ.update(zip(VARIABLES['pytorch'], (os.environ[name] for name in names), strict=True))
        os.environ.setdefault('MASTER_PORT', '29500')  # mmengine's default too
        if 'MASTER_ADDR' not in os.environ:
            os.environ['MASTER_ADDR'] = first_host(launcher)
    torch.distributed.init_process_group('gloo', timeout=None if timeout is None else timedelta(seconds=timeout))


def synchronise_norms(model: nn.Module, sync_bn: str | None, logger: logging.Logger) -> nn.Module:
    """Synchronise BatchNorm over the processes on GPUs; on CPUs, where torch cannot, revert it and warn.

    Args:
        model: to be trained; may be changed.
        sync_bn: 'torch' or 'mmcv', the implementation; unchanged on GPUs if None.
        logger: for the warning.
    """
    synchronised: nn.Module = model
    if get_device() == 'cpu':
        if any(isinstance(module, _BatchNorm) for module in model.modules()):
            logger.warning(
                'SyncBN needs a GPU: each process computes its own BatchNorm statistics, '
                'and checkpoints hold those of the first'
            )
        synchronised = revert_sync_batchnorm(model)
    elif sync_bn:
        synchronised = convert_sync_batchnorm(model, sync_bn)
    return synchronised


def first_host(launcher: str) -> str:
    """Return the host of process 0 from Slurm's list of nodes.

    Raises:
        UsageError: Slurm does not provide it.
    """
    try:
        command = ['scontrol', 'show', 'hostnames', os.environ['SLURM_NODELIST']]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[0]
    except (OSError, KeyError, IndexError, subprocess.CalledProcessError) as error:
        raise UsageError(f'--launcher {launcher}: set MASTER_ADDR to the host of the first process') from error


def is_first(launcher: str) -> bool:
    """Tell by the launcher's variables whether this is the first process of a job; works before they have joined.

    Args:
        launcher: 'none', 'pytorch', 'slurm' or 'mpi'.
    """
    return launcher == 'none' or os.environ.get(VARIABLES[launcher][0], '0') == '0'


def world_size_of(launcher: str) -> int:
    """Return the number of processes of a job by the launcher's variables; works before they have joined.

    Args:
        launcher: 'none', 'pytorch', 'slurm' or 'mpi'.
    """
    return 1 if launcher == 'none' else int(os.environ.get(VARIABLES[launcher][1], 1))


def command_line(argv: Sequence[str]) -> str:
    """Return the shell command that repeats this run, on as many processes of this machine, without secrets.

    Args:
        argv: of `mmseg_volo_cli.main`.
    """
    if LAUNCHED in os.environ:  # by `launch.py`, which appends two arguments
        return shlex.join(
            ['python', '-m', 'mmseg_volo.launch', os.environ.get('WORLD_SIZE', '1'), *redact_argv(argv[:-2])]
        )
    return shlex.join(['mmseg-volo', *redact_argv(argv)])
