"""Define decode heads."""

from mmseg_volo.models.decode_heads.lean import LeanSegformerHead, LeanUPerHead

__all__ = ['LeanSegformerHead', 'LeanUPerHead']
