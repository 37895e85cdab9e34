"""Run `python -m mmseg_volo_cli`, which `mmseg_volo.launch` starts in each process."""

from mmseg_volo_cli import run

run()
