"""`mmseg-volo predict`: files in, masks and what is made of them out."""

from mmseg_volo.inference.options import OUTPUTS, Options
from mmseg_volo.inference.run import predict_files

__all__ = ['OUTPUTS', 'Options', 'predict_files']
