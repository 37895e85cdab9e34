"""Run `mmseg-volo train|test|predict|report|check|weights|app|doctor`; `tools/*.py` call the same function.

This package lies beside `mmseg_volo`, because importing that imports torch, which takes seconds: `--help` prints at
once, and `doctor` runs where torch is broken.
"""

from __future__ import annotations

import atexit
import gc
import io
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from mmseg_volo_cli.parser import build_parser


@contextmanager
def _without_gc() -> Iterator[None]:
    """Disable garbage collection during heavy imports (saves 2 s), and exempt the imported objects from later ones.

    They are collected at exit again, because extension modules complain about leftovers.
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
    """Run a command.

    Args:
        argv: e.g. `['train', 'volo_demo', '--amp']`; `sys.argv[1:]` if None.

    Returns:
        The exit status: 0; 2 with one sentence on stderr if the input cannot work; from `doctor` 1 if something is
        broken; 130 after Ctrl-C; 141 if the reader of the output is gone.
    """
    args = build_parser().parse_args(argv)
    args.argv, args.parent = sys.argv[1:] if argv is None else [*argv], os.getppid()
    if args.command == 'doctor':  # before the imports below, which fail in a broken environment
        from mmseg_volo_cli.doctor import doctor

        return doctor()
    os.environ.setdefault('OPENCV_LOG_LEVEL', 'OFF')  # unreadable files are reported by our own messages
    with _without_gc():
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
    except KeyboardInterrupt:  # before or after a training, which handles it itself
        print('stopped by Ctrl-C', file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output, e.g. `head`, is gone
        silence_output()
        return 141
    if is_distributed():  # NCCL warns if the process group is not destroyed
        gc.collect()  # the model references the group too; its threads, if alive at exit, may abort the process
        destroy_process_group()
    return 0


def run() -> None:
    """Run the console command `mmseg-volo`."""
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == 'strict':  # file names may be any bytes
        sys.stdout.reconfigure(errors='backslashreplace')
    sys.exit(main())
