"""Checks a data set and makes what training needs from it: see `python tools/prepare_data.py --help`."""

import sys

if __name__ == '__main__':
    # imported here: the processes that draw labels import this file again, and need none of it
    from mmseg_volo.cli.prepare import main

    sys.exit(main(sys.argv[1:]))
