"""Draw a data set, train a small VOLO on it, evaluate it and write a page of results: what `make demo` runs."""

import argparse
import sys

from mmseg_volo.cli.quickstart import demo
from mmseg_volo.errors import UsageError, print_error

if __name__ == '__main__':
    description = f'{__doc__} The scenes are kept in data/demo, the results replace those in work_dirs/demo.'
    argparse.ArgumentParser(description=description).parse_args()
    try:
        demo()
    except UsageError as error:
        print_error(error)
        sys.exit(2)
