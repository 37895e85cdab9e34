from mmseg_volo.segmentors.banded import BandedEncoderDecoder, masks_only
from mmseg_volo.segmentors.tta import RunningTTA

__all__ = ['BandedEncoderDecoder', 'RunningTTA', 'masks_only']
