"""Runtime of all shipped configs: registries, hooks and logging."""

default_scope = 'mmseg'
custom_imports = dict(imports=['mmseg_volo.register_all'], allow_failed_imports=False)
runner_type = 'SegRunner'  # prints less than mmengine's, in MMSegmentation's tools as well

env_cfg = dict(cudnn_benchmark=True, mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0), dist_cfg=dict())
sync_bn = 'torch'  # across processes; a single process uses plain BN
log_processor = dict(by_epoch=False)
log_level = 'INFO'
load_from = None
resume = False

vis_backends = [dict(type='FaultTolerantVisBackend')]
visualizer = dict(type='SegLocalVisualizer', vis_backends=vis_backends)
# averaged weights: custom_hooks = [*_base_.custom_hooks, dict(type='EMAHook', momentum=2e-4)] in an experiment
custom_hooks = [
    dict(type=name) for name in ('NonFiniteGuardHook', 'AverageLogsHook', 'GracefulStopHook', 'ProgressHook')
]
tta_model = dict(type='StreamingTTA')
