"""Run `mmseg-volo check`: see `python tools/check.py --help`."""

import sys

from mmseg_volo_cli import main

if __name__ == '__main__':
    sys.exit(main(['check', *sys.argv[1:]]))
