from mmseg_volo.evaluation.iou import SegIoUMetric
from mmseg_volo.evaluation.masks import MaskFiles

__all__ = ['MaskFiles', 'SegIoUMetric']
