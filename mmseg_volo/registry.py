"""The scope `mmseg_volo`, in which MMEngine's inferencers look models up by their name: below mmseg's, so that what a
config names is found whether it is ours, mmseg's, mmcv's or mmengine's.

MMEngine imports this module when it is asked for the scope, as by `MMSegInferencer('volo_d1_cityscapes', FILE,
scope='mmseg_volo')`. Our parts are registered with MMEngine itself: in configs they need no prefix.
"""

from mmengine.registry import FUNCTIONS, Registry
from mmseg import registry as mmseg_registry

REGISTRIES = {
    name: Registry(theirs.name, parent=theirs, scope='mmseg_volo', locations=['mmseg_volo.register_all'])
    for name, theirs in vars(mmseg_registry).items()
    if isinstance(theirs, Registry)
}
REGISTRIES['FUNCTIONS'] = Registry(
    'function', parent=FUNCTIONS, scope='mmseg_volo', locations=['mmseg_volo.register_all']
)
