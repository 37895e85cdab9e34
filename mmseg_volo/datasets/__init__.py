from mmseg_volo.datasets.camvid import CamVidDataset

__all__ = ['CamVidDataset']
