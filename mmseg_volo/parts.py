"""All that configs name: importing this registers it with mmengine. Our configs do so (`custom_imports`)."""

import contextlib
import io

with contextlib.redirect_stdout(io.StringIO()):  # mmseg prints that an optional reader is absent
    import mmseg.datasets  # noqa: F401

from mmengine.config.utils import MODULE2PACKAGE  # noqa: E402

from mmseg_volo import datasets, engine, evaluation, losses, segmentors  # noqa: E402

__all__ = ['datasets', 'engine', 'evaluation', 'losses', 'segmentors']
# packages whose models mmengine lists: `MMSegInferencer.list_models('mmseg_volo')` reads our model-index.yml then
MODULE2PACKAGE.setdefault('mmseg_volo', 'mmseg_volo')
