"""Alias `mmseg_volo.register_all` by its former name, which configs saved by earlier versions import."""

import mmseg_volo.register_all  # noqa: F401
