"""Runs a command in several processes, one per GPU: `python -m mmseg_volo.launch GPUS train|test ...`.

It is torchrun, which ends the job when one process fails, but in one line where torchrun prints a page. On one machine
it takes a free port, so that two jobs share the machine. For several, `NNODES`, `NODE_RANK`, `MASTER_ADDR` and
`MASTER_PORT` (29500) are set on each.
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
    """Starts the processes and waits for them.

    Args:
        argv: the number of processes on this machine, then the arguments of `mmseg-volo`.

    Returns:
        The exit status: 0, 2 when what the user gave cannot work, else that of the process that failed first.
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
    build_parser().parse_args(command)  # what is wrong with them is said once
    os.environ[LAUNCHED] = '1'
    for library in ('OMP', 'MKL'):  # as torchrun and mmengine do, with warnings
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
    """torchrun's arguments for one machine, or for this one of several.

    Raises:
        UsageError: `processes` is no number, or several machines do not know where to meet.
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
    place = ['--nnodes', nodes, '--node_rank', env['NODE_RANK']]
    return [*place, '--master_addr', env['MASTER_ADDR'], '--master_port', env.get('MASTER_PORT', '29500'), *count]


def explain(failures: Mapping[int, ProcessFailure], resumable: bool) -> int:
    """Says in one line why a job ended, and returns its exit status.

    Args:
        failures: of the processes that failed first, by rank.
        resumable: whether `--resume` goes on with it.
    """
    told = {f.message['message'].partition(': ')[2] for f in failures.values() if isinstance(f.message, dict)}
    if told:
        for sentence in sorted(told):
            print(f'error: {sentence}', file=sys.stderr)
        return 2
    # a process that was killed takes those down that talk to it
    rank, failure = min(failures.items(), key=lambda item: (item[1].exitcode >= 0, item[1].timestamp))
    if failure.exitcode < 0:
        memory = ' (as the system does when memory runs out)' if failure.exitcode == -signal.SIGKILL else ''
        what = f'was killed by {failure.signal_name()}{memory}'
    else:
        what = f'failed with status {failure.exitcode}, see its traceback above'
    hint = '; --resume goes on from the last checkpoint' if resumable else ''
    print(f'error: process {rank} (pid {failure.pid}) {what}; the job was ended{hint}', file=sys.stderr)
    return failure.exitcode if failure.exitcode > 0 else 128 - failure.exitcode


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
