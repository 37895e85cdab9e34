"""Run `tools/prepare_data.py`: check a downloaded data set, and make what training needs from it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from mmseg_volo.datasets.prepare.layouts import LAYOUTS
from mmseg_volo.datasets.prepare.prepare import prepare_dataset
from mmseg_volo.errors import UsageError


def main(argv: Sequence[str] | None = None) -> int:
    """Check and prepare a data set.

    Args:
        argv: e.g. `['cityscapes', 'data/cityscapes']`; `sys.argv[1:]` if None.

    Returns:
        The exit status: 0, 2 with one sentence on stderr, or 130 after Ctrl-C.
    """
    parser = argparse.ArgumentParser('prepare_data.py', description='Check a data set and make what training needs.')
    parser.add_argument('data_set', choices=[*LAYOUTS])
    parser.add_argument('path', help='its folder, see data/README.md')
    parser.add_argument('--workers', type=int, help='files at a time; as many as there are cores, up to 16')
    parser.add_argument('--overwrite', action='store_true', help="make all of Cityscapes' training labels anew")
    parser.add_argument(
        '--cache',
        action='store_true',
        help='also keep decoded copies of the training files (25 GB for Cityscapes; the size is printed first), from '
        'which training loads several times as fast; can be stopped and repeated',
    )
    args = parser.parse_args(argv)
    try:
        prepare_dataset(args.data_set, args.path, args.workers, args.overwrite, args.cache)
    except (UsageError, FileNotFoundError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print('stopped: the files written so far are complete, the same command continues', file=sys.stderr)
        return 130
    return 0
