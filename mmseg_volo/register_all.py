"""Register everything that configs name with mmengine; the shipped configs import this module (`custom_imports`)."""

from mmseg_volo import datasets, engine, evaluation
from mmseg_volo.models import decode_heads, losses, segmentors

__all__ = ['datasets', 'decode_heads', 'engine', 'evaluation', 'losses', 'segmentors']
