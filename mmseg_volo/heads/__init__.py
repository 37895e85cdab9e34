"""Decode heads."""

from mmseg_volo.heads.lean import LeanSegformerHead, LeanUPerHead

__all__ = ['LeanSegformerHead', 'LeanUPerHead']
