"""Run `mmseg-volo train`: see `python tools/train.py --help`."""

import sys

from mmseg_volo_cli import main

if __name__ == '__main__':
    sys.exit(main(['train', *sys.argv[1:]]))
