"""All that configs name: importing this registers it with mmengine. Our configs do so (`custom_imports`)."""

import contextlib
import io

with contextlib.redirect_stdout(io.StringIO()):  # mmseg prints that an optional reader is absent
    import mmseg.datasets  # noqa: F401

from mmseg_volo import datasets, engine, evaluation, folders, heads, losses, segmentors  # noqa: E402

__all__ = ['datasets', 'engine', 'evaluation', 'folders', 'heads', 'losses', 'segmentors']
