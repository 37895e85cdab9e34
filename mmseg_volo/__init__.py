"""VOLO and its relatives as backbones for semantic segmentation; importing this registers them."""

import contextlib
import io
import warnings

# mmcv without compiled operators says so on import; nothing here needs them
warnings.filterwarnings('ignore', message='Fail to import ``MultiScaleDeformableAttention``')
with contextlib.redirect_stdout(io.StringIO()):  # mmseg prints that an optional reader is absent
    import mmseg.datasets  # noqa: F401

from mmseg_volo import backbones, datasets, engine, necks
from mmseg_volo.apis import Prediction, load, predict

__all__ = ['Prediction', 'backbones', 'datasets', 'engine', 'load', 'necks', 'predict']
__version__ = '0.1.0'
