"""Register the scope `mmseg_volo`, in which MMEngine's inferencers search models by name. Its registries are children
of mmseg's, so that a config may name components of this package, mmseg, mmcv and mmengine.

MMEngine imports this module when the scope is used, e.g. by `MMSegInferencer('volo_d1_cityscapes', FILE,
scope='mmseg_volo')`. This package's components are registered with MMEngine itself: in configs they need no prefix.
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
