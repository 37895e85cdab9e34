"""Estimate the training cost of recipes; `--write` updates cards and results: `python tools/recipe_cost.py --help`."""

import sys

from mmseg_volo.zoo.cost import main

if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
