"""Update the table of backbones in the README from the variants in the code."""

import argparse
from pathlib import Path

from mmseg_volo.zoo.backbone_table import write_table

if __name__ == '__main__':
    argparse.ArgumentParser(description=__doc__).parse_args()
    write_table(Path(__file__).parents[1] / 'README.md')
