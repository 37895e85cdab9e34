from mmseg_volo.evaluation.masks import MaskFiles

__all__ = ['MaskFiles']
