"""`mmseg-volo train|test|predict|report|check|weights|demo|doctor`, which `tools/*.py` call too.

This package lies beside `mmseg_volo`, as importing that takes torch, which takes seconds: `--help` comes at once, and
`doctor` runs where torch is broken.
"""

from __future__ import annotations

import atexit
import gc
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from mmseg_volo_cli.parser import build_parser


@contextmanager
def _without_collections() -> Iterator[None]:
    """Inside no garbage is looked for, nor ever among what was imported there: that takes two seconds of a start.

    At exit it is, as extension modules complain of what is left over.
    """
    if 'mmseg_volo.cli.commands' in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
        atexit.register(gc.unfreeze)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
        argv: e.g. `['train', 'volo_demo', '--amp']`; `sys.argv[1:]` if None.

    Returns:
        The exit status: 0, or 2 with one sentence on stderr when what the user gave cannot work; of `doctor` 1 when
        something is broken.
    """
    args = build_parser().parse_args(argv)
    args.argv, args.parent = sys.argv[1:] if argv is None else [*argv], os.getppid()
    if args.command == 'doctor':  # for those with whom what follows cannot be imported
        from mmseg_volo_cli.doctor import doctor

        return doctor()
    os.environ.setdefault('OPENCV_LOG_LEVEL', 'OFF')  # what it says of bad files, we say by their names
    with _without_collections():
        from mmengine.dist import is_distributed
        from torch.distributed import destroy_process_group

        from mmseg_volo.cli import commands as cli
        from mmseg_volo.engine.hooks.stop import ended_by_signals
        from mmseg_volo.errors import UsageError, print_error, silence_output

    try:
        with ended_by_signals():
            if getattr(args, 'cfg_options', None) is not None:
                args.cfg_options = cli.parse(args.cfg_options)
            getattr(cli, args.command)(args)
            print(end='', flush=True)
    except (UsageError, FileNotFoundError) as error:
        print_error(error)
        return 2
    except KeyboardInterrupt:  # before or after a training, which answers itself
        print('stopped by Ctrl-C', file=sys.stderr)
        return 130
    except BrokenPipeError:  # who read what we print, as `head`, is gone
        silence_output()
        return 141
    if is_distributed():  # NCCL warns of processes that do not take leave
        gc.collect()  # the model holds the group too, whose threads, alive at exit, now and then abort the process
        destroy_process_group()
    return 0


def run() -> None:
    """The console command `mmseg-volo`."""
    if getattr(sys.stdout, 'errors', '') == 'strict':  # names of files may be of any bytes
        sys.stdout.reconfigure(errors='backslashreplace')
    sys.exit(main())
