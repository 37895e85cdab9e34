"""Estimate the training cost of recipes, and write it into their cards and mmseg_volo/zoo/results.yml: see `python tools/recipe_cost.py --help`."""

import sys

from mmseg_volo.zoo.cost import main

if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
