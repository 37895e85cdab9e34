"""VOLO and its relatives as backbones for semantic segmentation; importing this registers backbones and necks.

What builds on mmseg, which takes seconds to import, is registered by `mmseg_volo.register_all`: our tools and our
configs (`custom_imports`) import it themselves.
"""

import warnings

# what mmcv and mmseg say of themselves, with nothing wrong: no compiled operators (nothing here needs them), and
# mmseg's heads calling functions of mmseg that mmseg deprecates
warnings.filterwarnings('ignore', message='Fail to import ``MultiScaleDeformableAttention``')
warnings.filterwarnings('ignore', message='``build_(pixel_sampler|loss)`` would be deprecated')
warnings.filterwarnings('ignore', message='Default ``avg_non_ignore`` is False')  # which the recipes mean
# of several processes: what mmengine itself passes on to DDP; two names for one layout, where a depthwise convolution's
# weight has an axis of length 1
warnings.filterwarnings('ignore', message='`broadcast_buffers` is deprecated')
warnings.filterwarnings('ignore', message='Grad strides do not match bucket view strides')

from mmengine.config.utils import MODULE2PACKAGE  # noqa: E402

from mmseg_volo.inference.api import Prediction, load, predict, predict_each  # noqa: E402
from mmseg_volo.models import backbones, necks  # noqa: E402
from mmseg_volo.version import __version__  # noqa: E402, F401

__all__ = ['Prediction', 'backbones', 'load', 'necks', 'predict', 'predict_each']
# packages whose models mmengine lists: `MMSegInferencer.list_models('mmseg_volo')` reads our model-index.yml then
MODULE2PACKAGE.setdefault('mmseg_volo', 'mmseg_volo')
