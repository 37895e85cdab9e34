from mmseg_volo.backbones.volo import VOLO

__all__ = ['VOLO']
