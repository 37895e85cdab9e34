"""`mmseg-volo predict`: files in, masks and what is made of them out."""

from mmseg_volo.inference.files import predict_files
from mmseg_volo.inference.options import OUTPUTS, Options

__all__ = ['OUTPUTS', 'Options', 'predict_files']
