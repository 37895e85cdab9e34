from mmseg_volo.datasets.camvid import CamVidDataset
from mmseg_volo.datasets.transforms import ContiguousRandomFlip, LoadRandomCrop, TablePhotoMetricDistortion

__all__ = ['CamVidDataset', 'ContiguousRandomFlip', 'LoadRandomCrop', 'TablePhotoMetricDistortion']
