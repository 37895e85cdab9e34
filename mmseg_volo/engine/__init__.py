from mmseg_volo.engine.hooks import OverlayHook, PlainCheckpointHook
from mmseg_volo.engine.muon import MuonAdamW
from mmseg_volo.engine.optim import CpuAmpOptimWrapper
from mmseg_volo.engine.runner import SegRunner

__all__ = ['CpuAmpOptimWrapper', 'MuonAdamW', 'OverlayHook', 'PlainCheckpointHook', 'SegRunner']
