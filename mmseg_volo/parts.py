"""The former name of `mmseg_volo.register_all`, which configs saved by earlier versions import."""

from mmseg_volo.register_all import *  # noqa: F403
