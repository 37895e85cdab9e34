"""The former name of `mmseg_volo.register_all`, which configs saved by earlier versions import."""

import mmseg_volo.register_all  # noqa: F401
