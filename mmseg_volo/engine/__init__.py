from mmseg_volo.engine.batch import AveragePerUpdateHook, SchedulePerUpdateHook
from mmseg_volo.engine.checkpoints import SafeCheckpointHook
from mmseg_volo.engine.draws import DrawSampler
from mmseg_volo.engine.finite import FiniteHook
from mmseg_volo.engine.hooks import LastingEarlyStoppingHook, MeanOverProcessesHook, OverlayHook, PlainCheckpointHook
from mmseg_volo.engine.logs import PatientVisBackend
from mmseg_volo.engine.loop import SegTrainLoop
from mmseg_volo.engine.muon import MuonAdamW
from mmseg_volo.engine.optim import CpuAmpOptimWrapper
from mmseg_volo.engine.param_groups import ProportionalPolyLR, SegOptimWrapperConstructor
from mmseg_volo.engine.progress import ProgressHook
from mmseg_volo.engine.runner import SegRunner
from mmseg_volo.engine.stop import StopHook
from mmseg_volo.engine.trackers import PatientMLflow, PatientTensorboard, PatientWandb, TestScoresHook

__all__ = [
    'AveragePerUpdateHook',
    'CpuAmpOptimWrapper',
    'DrawSampler',
    'FiniteHook',
    'LastingEarlyStoppingHook',
    'MeanOverProcessesHook',
    'MuonAdamW',
    'OverlayHook',
    'PatientMLflow',
    'PatientTensorboard',
    'PatientVisBackend',
    'PatientWandb',
    'PlainCheckpointHook',
    'ProgressHook',
    'ProportionalPolyLR',
    'SafeCheckpointHook',
    'SchedulePerUpdateHook',
    'SegOptimWrapperConstructor',
    'SegRunner',
    'SegTrainLoop',
    'StopHook',
    'TestScoresHook',
]
