"""Processes without a GPU, started by torchrun, Slurm or MPI."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Sequence
from datetime import timedelta

import torch.distributed

from mmseg_volo.errors import LAUNCHED, UsageError
from mmseg_volo.secrets import masked_words

NAMES = ('RANK', 'WORLD_SIZE', 'LOCAL_RANK')  # torch's; torchrun sets them itself
THEIRS = {
    'slurm': ('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_LOCALID'),
    'mpi': ('OMPI_COMM_WORLD_RANK', 'OMPI_COMM_WORLD_SIZE', 'OMPI_COMM_WORLD_LOCAL_RANK'),
}


def join_on_cpu(launcher: str, timeout: float | None = None) -> None:
    """Joins the processes of a job by gloo; mmengine's `init_dist` asks for CUDA.

    Args:
        launcher: 'pytorch', 'slurm' or 'mpi'.
        timeout: seconds that a process waits for the others; torch's own if None.

    Raises:
        UsageError: the launcher's variables are not set.
    """
    if launcher != 'pytorch':
        theirs = THEIRS[launcher]
        if absent := [name for name in theirs if name not in os.environ]:
            raise UsageError(f'--launcher {launcher}: {", ".join(absent)} is not set; start this by srun or mpirun')
        os.environ.update(zip(NAMES, (os.environ[name] for name in theirs), strict=True))
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
    return launcher == 'none' or os.environ.get(THEIRS.get(launcher, NAMES)[0], '0') == '0'


def command_line(argv: Sequence[str]) -> str:
    """The shell's command that starts the same again, on as many processes of this machine, without secrets.

    Args:
        argv: of `mmseg_volo_cli.main`.
    """
    if LAUNCHED in os.environ:  # by `launch.py`, which adds these two
        return shlex.join(
            ['python', '-m', 'mmseg_volo.launch', os.environ.get('WORLD_SIZE', '1'), *masked_words(argv[:-2])]
        )
    return shlex.join(['mmseg-volo', *masked_words(argv)])
