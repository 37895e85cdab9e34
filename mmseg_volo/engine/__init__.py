from mmseg_volo.engine.checkpoint import SafeCheckpointHook
from mmseg_volo.engine.checkpoint_content import PlainCheckpointHook
from mmseg_volo.engine.effective_batch import AveragePerUpdateHook, SchedulePerUpdateHook
from mmseg_volo.engine.hooks.average_logs import AverageLogsHook
from mmseg_volo.engine.hooks.early_stopping import ResumableEarlyStoppingHook
from mmseg_volo.engine.hooks.non_finite import NonFiniteGuardHook
from mmseg_volo.engine.hooks.overlay import OverlayHook
from mmseg_volo.engine.hooks.progress import ProgressHook
from mmseg_volo.engine.hooks.stop import GracefulStopHook
from mmseg_volo.engine.loop import SegTrainLoop
from mmseg_volo.engine.optim.muon import MuonAdamW
from mmseg_volo.engine.optim.param_groups import ProportionalPolyLR, SegOptimWrapperConstructor
from mmseg_volo.engine.optim.precision import CpuAmpOptimWrapper
from mmseg_volo.engine.runner import SegRunner
from mmseg_volo.engine.trackers import (
    FaultTolerantMLflow,
    FaultTolerantTensorboard,
    FaultTolerantVisBackend,
    FaultTolerantWandb,
    TestScoresHook,
)

__all__ = [
    'AveragePerUpdateHook',
    'CpuAmpOptimWrapper',
    'NonFiniteGuardHook',
    'ResumableEarlyStoppingHook',
    'AverageLogsHook',
    'MuonAdamW',
    'OverlayHook',
    'FaultTolerantMLflow',
    'FaultTolerantTensorboard',
    'FaultTolerantVisBackend',
    'FaultTolerantWandb',
    'PlainCheckpointHook',
    'ProgressHook',
    'ProportionalPolyLR',
    'SafeCheckpointHook',
    'SchedulePerUpdateHook',
    'SegOptimWrapperConstructor',
    'SegRunner',
    'SegTrainLoop',
    'GracefulStopHook',
    'TestScoresHook',
]
