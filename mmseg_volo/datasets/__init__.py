"""Register data sets, their transforms and samplers, and mmseg's, on import."""

import contextlib
import io

with contextlib.redirect_stdout(io.StringIO()):  # mmseg prints that an optional reader is missing
    import mmseg.datasets  # noqa: F401

from mmseg_volo.datasets.camvid import CamVidDataset  # noqa: E402
from mmseg_volo.datasets.image_folder import FolderDataset  # noqa: E402
from mmseg_volo.datasets.loading import LoadMask, LoadMultiBandImage  # noqa: E402
from mmseg_volo.datasets.sampler import ResumableInfiniteSampler  # noqa: E402
from mmseg_volo.datasets.transforms import (  # noqa: E402
    ContiguousRandomFlip,
    FastPhotoMetricDistortion,
    LoadRandomCrop,
)

__all__ = [
    'CamVidDataset',
    'ContiguousRandomFlip',
    'ResumableInfiniteSampler',
    'FolderDataset',
    'LoadMultiBandImage',
    'LoadMask',
    'LoadRandomCrop',
    'FastPhotoMetricDistortion',
]
