from mmseg_volo.backbones.coatnet import CoAtNet
from mmseg_volo.backbones.volo import VOLO

__all__ = ['VOLO', 'CoAtNet']
