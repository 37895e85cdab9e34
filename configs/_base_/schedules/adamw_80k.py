"""AdamW for 80k iterations: 6e-5, linear warm-up and decay; norms, biases, position tables and scales do not decay.

VOLO: lr, weight decay, linear decay to 5e-6 [recalled, not checked]; the LV-ViT configs of the same group (same lr and
weight decay, warm-up of 1500 from 1e-6, power 1.0) [read].
"""

max_iters = 80_000
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=6e-5, betas=(0.9, 0.999), weight_decay=0.01),
    constructor='SegOptimWrapperConstructor',  # paramwise_cfg: layer_decay_rate and custom_keys, both off here
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1 / 60, begin=0, end=1500, by_epoch=False),
    dict(type='ProportionalPolyLR', eta_min=5e-6, power=1.0, begin=1500, end=max_iters, by_epoch=False),
]
train_cfg = dict(type='SegTrainLoop', max_iters=max_iters, val_interval=max_iters // 10)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50, log_metric_by_epoch=False),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(
        type='SafeCheckpointHook', by_epoch=False, interval=max_iters // 10, save_best='mIoU', max_keep_ckpts=2
    ),
    sampler_seed=dict(type='DistSamplerSeedHook'),
)
