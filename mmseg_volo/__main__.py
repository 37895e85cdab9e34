"""Run the command `mmseg-volo` as `python -m mmseg_volo`, where its folder is not on the PATH."""

from mmseg_volo_cli import run

run()
