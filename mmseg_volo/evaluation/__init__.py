from mmseg_volo.evaluation.iou import SegIoUMetric
from mmseg_volo.evaluation.mask_writer import MaskFiles

__all__ = ['MaskFiles', 'SegIoUMetric']
