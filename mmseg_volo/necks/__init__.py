from mmseg_volo.necks.pyramid import StridePyramid

__all__ = ['StridePyramid']
