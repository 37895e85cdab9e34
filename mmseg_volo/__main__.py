"""`python -m mmseg_volo`: the command `mmseg-volo`, where its folder is not on the PATH."""

from mmseg_volo_cli import run

run()
