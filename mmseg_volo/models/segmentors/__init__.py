from mmseg_volo.models import backbones, decode_heads, losses, necks  # noqa: F401, registers what segmentors are made of
from mmseg_volo.models.segmentors.streaming import BandedEncoderDecoder, masks_only
from mmseg_volo.models.segmentors.tta import RunningTTA

__all__ = ['BandedEncoderDecoder', 'RunningTTA', 'masks_only']
