from mmseg_volo.segmentors.tta import RunningTTA

__all__ = ['RunningTTA']
