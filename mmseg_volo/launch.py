"""Run a command in several processes, one per GPU: `python -m mmseg_volo.launch GPUS train|test ...`.

This wraps torchrun, which ends the job when one process fails, and reports the failure in one line instead of a page.
On one machine it picks a free port, so that two jobs can share the machine. For several machines, set `NNODES`,
`NODE_RANK`, `MASTER_ADDR` and `MASTER_PORT` (default 29500) on each.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Mapping, Sequence

from torch.distributed import run as torchrun
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from mmseg_volo.errors import LAUNCHED, UsageError
from mmseg_volo_cli.parser import build_parser


def main(argv: Sequence[str]) -> int:
    """Start the processes and wait for them.

    Args:
        argv: the number of processes on this machine, then the arguments of `mmseg-volo`.

    Returns:
        The exit status: 0, 2 for wrong usage, else that of the process that failed first.
    """
    if argv[:1] in (['-h'], ['--help']):
        print(f'usage: python -m mmseg_volo.launch GPUS train|test ...\n\n{__doc__}')
        return 0
    try:
        options = torchrun_options(argv[0] if argv else '', os.environ)
    except UsageError as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    command = [*argv[1:], '--launcher', 'pytorch']
    build_parser().parse_args(command)  # reports wrong options once, not in each process
    os.environ[LAUNCHED] = '1'
    for library in ('OMP', 'MKL'):  # torchrun and mmengine set the same, with warnings
        os.environ.setdefault(f'{library}_NUM_THREADS', '1')
    logging.getLogger('torch.distributed.elastic').setLevel(logging.CRITICAL)
    try:
        torchrun.run(torchrun.parse_args([*options, '--module', 'mmseg_volo_cli', *command]))
    except ChildFailedError as error:
        return explain(error.failures, resumable=command[0] == 'train')
    except SignalException as error:
        print(f'error: ended by {signal.Signals(error.sigval).name}, and all processes with it', file=sys.stderr)
        return 128 + error.sigval
    return 0


def torchrun_options(processes: str, env: Mapping[str, str]) -> list[str]:
    """Return torchrun's arguments for one machine, or for this one of several.

    Raises:
        UsageError: `processes` is no number, or the rank or the address of the first machine is not set.
    """
    if not processes.isdecimal() or int(processes) < 1:
        raise UsageError(f'expected the number of GPUs (processes on this machine), got {processes!r}')
    count = ['--nproc_per_node', processes]
    if (nodes := env.get('NNODES', '1')) == '1':
        return ['--standalone', '--local_addr', '127.0.0.1', *count]
    if absent := [name for name in ('NODE_RANK', 'MASTER_ADDR') if name not in env]:
        raise UsageError(
            f'NNODES={nodes}, but {" and ".join(absent)} is not set: set NODE_RANK to 0, 1, ... and MASTER_ADDR to the '
            f'machine of rank 0'
        )
    node = ['--nnodes', nodes, '--node_rank', env['NODE_RANK']]
    return [*node, '--master_addr', env['MASTER_ADDR'], '--master_port', env.get('MASTER_PORT', '29500'), *count]


def explain(failures: Mapping[int, ProcessFailure], resumable: bool) -> int:
    """Print in one line why a job ended, and return its exit status.

    Args:
        failures: of the processes that failed first, by rank.
        resumable: whether `--resume` can continue the job.
    """
    records: list[object] = [failure.message for failure in failures.values()]  # a dict if `print_error` recorded it
    messages = {record['message'].partition(': ')[2] for record in records if isinstance(record, dict)}
    if messages:
        for message in sorted(messages):
            print(f'error: {message}', file=sys.stderr)
        return 2
    # a killed process takes down those that communicate with it
    rank, failure = min(failures.items(), key=lambda item: (item[1].exitcode >= 0, item[1].timestamp))
    if failure.exitcode < 0:
        memory = ' (as the system does when memory runs out)' if failure.exitcode == -signal.SIGKILL else ''
        end = f'was killed by {failure.signal_name()}{memory}'
    else:
        end = f'failed with status {failure.exitcode}, see its traceback above'
    hint = '; --resume goes on from the last checkpoint' if resumable else ''
    print(f'error: process {rank} (pid {failure.pid}) {end}; the job was ended{hint}', file=sys.stderr)
    return failure.exitcode if failure.exitcode > 0 else 128 - failure.exitcode


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
