from mmseg_volo.engine.batch import AveragePerUpdateHook, SchedulePerUpdateHook
from mmseg_volo.engine.hooks import OverlayHook, PlainCheckpointHook
from mmseg_volo.engine.muon import MuonAdamW
from mmseg_volo.engine.optim import CpuAmpOptimWrapper
from mmseg_volo.engine.param_groups import ProportionalPolyLR, SegOptimWrapperConstructor
from mmseg_volo.engine.runner import SegRunner

__all__ = [
    'AveragePerUpdateHook',
    'CpuAmpOptimWrapper',
    'MuonAdamW',
    'OverlayHook',
    'PlainCheckpointHook',
    'ProportionalPolyLR',
    'SchedulePerUpdateHook',
    'SegOptimWrapperConstructor',
    'SegRunner',
]
