"""Segment images with VOLO and related backbones; importing this package registers its backbones and necks.

The components that need mmseg, which takes seconds to import, are registered by `mmseg_volo.register_all`: the commands
and the shipped configs (`custom_imports`) import it.
"""

import warnings

# harmless warnings of mmcv and mmseg: about compiled operators, which nothing here needs, and about functions of
# mmseg that are deprecated but called by mmseg's own heads
warnings.filterwarnings('ignore', message='Fail to import ``MultiScaleDeformableAttention``')
warnings.filterwarnings('ignore', message='``build_(pixel_sampler|loss)`` would be deprecated')
warnings.filterwarnings('ignore', message='Default ``avg_non_ignore`` is False')  # intended by the recipes
# in distributed training: about an argument that mmengine itself passes to DDP, and about strides that differ only
# along the axis of length 1 of a depthwise convolution's weight
warnings.filterwarnings('ignore', message='`broadcast_buffers` is deprecated')
warnings.filterwarnings('ignore', message='Grad strides do not match bucket view strides')

from mmengine.config.utils import MODULE2PACKAGE  # noqa: E402

from mmseg_volo.inference.api import Prediction, load, predict, predict_each  # noqa: E402
from mmseg_volo.models import backbones, necks  # noqa: E402
from mmseg_volo.version import __version__  # noqa: E402, F401

__all__ = ['Prediction', 'backbones', 'load', 'necks', 'predict', 'predict_each']
# lets `MMSegInferencer.list_models('mmseg_volo')` read this package's model-index.yml
MODULE2PACKAGE.setdefault('mmseg_volo', 'mmseg_volo')
