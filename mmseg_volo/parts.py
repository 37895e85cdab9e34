"""All that configs name: importing this registers it with mmengine. Our configs do so (`custom_imports`)."""

import contextlib
import io
import warnings

# what mmcv and mmseg say of themselves, with nothing wrong: no compiled operators (nothing here needs them), and
# mmseg's heads calling a function of mmseg that mmseg deprecates
warnings.filterwarnings('ignore', message='Fail to import ``MultiScaleDeformableAttention``')
warnings.filterwarnings('ignore', message='``build_pixel_sampler`` would be deprecated')
# of several processes: what mmengine itself passes on to DDP; two names for one layout, where a depthwise convolution's
# weight has an axis of length 1
warnings.filterwarnings('ignore', message='`broadcast_buffers` is deprecated')
warnings.filterwarnings('ignore', message='Grad strides do not match bucket view strides')
with contextlib.redirect_stdout(io.StringIO()):  # mmseg prints that an optional reader is absent
    import mmseg.datasets  # noqa: F401

from mmengine.config.utils import MODULE2PACKAGE  # noqa: E402

from mmseg_volo import datasets, engine, evaluation, losses, segmentors  # noqa: E402

__all__ = ['datasets', 'engine', 'evaluation', 'losses', 'segmentors']
# packages whose models mmengine lists: `MMSegInferencer.list_models('mmseg_volo')` reads our model-index.yml then
MODULE2PACKAGE.setdefault('mmseg_volo', 'mmseg_volo')
