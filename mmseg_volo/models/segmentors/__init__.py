from mmseg_volo.models import backbones, decode_heads, losses, necks  # noqa: F401, registers what segmentors are made of
from mmseg_volo.models.segmentors.streaming import StreamingEncoderDecoder, masks_only
from mmseg_volo.models.segmentors.tta import StreamingTTA

__all__ = ['StreamingEncoderDecoder', 'StreamingTTA', 'masks_only']
