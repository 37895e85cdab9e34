"""A small VOLO on CamVid."""

_base_ = [
    '_base_/models/upernet.py',
    '_base_/datasets/camvid.py',
    '_base_/schedules/adamw_80k.py',
    '_base_/default_runtime.py',
]
dims = [96, 192, 192, 192]
max_iters = 1500
model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    backbone=dict(
        type='VOLO', arch=dict(depths=[2, 2, 4, 2], dims=dims, num_heads=[3, 6, 6, 6], stem_dim=32), drop_path_rate=0.1
    ),
    neck=dict(type='StridePyramid', in_channels=dims, in_strides=[8, 16, 16, 16]),
    decode_head=dict(in_channels=dims, channels=128, num_classes=_base_.num_classes),
    auxiliary_head=dict(in_channels=dims[2], channels=64, num_classes=_base_.num_classes),
)
