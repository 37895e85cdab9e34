"""Run `mmseg-volo test`: see `python tools/test.py --help`."""

import sys

from mmseg_volo_cli import main

if __name__ == '__main__':
    sys.exit(main(['test', *sys.argv[1:]]))
