"""Update docs/model_zoo.md and configs/metafile.yml from the configs and mmseg_volo/zoo/results.yml."""

import argparse
from pathlib import Path

from mmseg_volo.zoo.pages import write

if __name__ == '__main__':
    argparse.ArgumentParser(description=__doc__).parse_args()
    write(Path(__file__).parents[1])
