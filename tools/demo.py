"""Draws a data set, trains a small VOLO on it, evaluates it and writes a page of results: what `make demo` runs."""

import argparse
import sys

from mmseg_volo.cli.quickstart import demo
from mmseg_volo.errors import UsageError, print_error

if __name__ == '__main__':
    description = f'{__doc__} The scenes are kept in data/demo, results in work_dirs/demo, which is replaced.'
    argparse.ArgumentParser(description=description).parse_args()
    try:
        demo()
    except UsageError as error:
        print_error(error)
        sys.exit(2)
