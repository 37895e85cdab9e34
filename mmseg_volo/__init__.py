"""VOLO and its relatives as backbones for semantic segmentation; importing this registers backbones and necks.

The parts that build on mmseg, which takes seconds to import, are in `mmseg_volo.parts`: `load`, our tools and our
configs (`custom_imports`) import it themselves.
"""

from mmseg_volo import backbones, necks
from mmseg_volo.apis import Prediction, load, predict, predict_each

__all__ = ['Prediction', 'backbones', 'load', 'necks', 'predict', 'predict_each']
__version__ = '0.1.0'
