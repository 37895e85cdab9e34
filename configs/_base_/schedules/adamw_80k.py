"""AdamW for 80k iterations: 6e-5, warm-up, linear decay to 0; norms, biases, position tables and scales do not decay.

Learning rate, weight decay, a warm-up of 1500 iterations from 1e-6 of the rate (a ratio, not a rate) and a decay of
power 1.0 to 0 are LV-ViT's (zihangJiang/TokenLabeling), Swin's (mmsegmentation) and SegFormer's (NVlabs/SegFormer);
ConvNeXt's (facebookresearch/ConvNeXt) has another rate, weight decay and layer decay [all read]. They have 160k
iterations; half of that is ours. Norms and position tables do not decay in Swin's, norms in SegFormer's; that biases
and scales do not is ours; LV-ViT decays everything. Configs of VOLO end at 5e-6 [recalled].
"""

max_iters = 80_000
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=6e-5, betas=(0.9, 0.999), weight_decay=0.01),
    constructor='SegOptimWrapperConstructor',  # paramwise_cfg: see there, none here
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, begin=0, end=1500, by_epoch=False),
    dict(type='ProportionalPolyLR', eta_min=0.0, power=1.0, begin=1500, end=max_iters, by_epoch=False),
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
