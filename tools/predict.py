"""Run `mmseg-volo predict`: see `python tools/predict.py --help`."""

import sys

from mmseg_volo_cli import main

if __name__ == '__main__':
    sys.exit(main(['predict', *sys.argv[1:]]))
