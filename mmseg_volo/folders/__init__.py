from mmseg_volo.folders.bands import LoadBands
from mmseg_volo.folders.dataset import FolderDataset, LoadMask

__all__ = ['FolderDataset', 'LoadBands', 'LoadMask']
