"""Check a data set and prepare it for training: see `python tools/prepare_data.py --help`."""

import sys

if __name__ == '__main__':
    # imported here: worker processes import this file again, and do not need it
    from mmseg_volo.cli.prepare import main

    sys.exit(main(sys.argv[1:]))
