from mmseg_volo.models.necks.pyramid import StridePyramid

__all__ = ['StridePyramid']
