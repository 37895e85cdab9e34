"""Run `mmseg-volo weights`: see `python tools/weights.py --help`."""

import sys

from mmseg_volo_cli import main

if __name__ == '__main__':
    sys.exit(main(['weights', *sys.argv[1:]]))
