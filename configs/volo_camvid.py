"""A small VOLO + UPerNet from scratch on CamVid, minutes on a CPU.

Recipe: ours, made to fit two CPU cores: stages half as wide as D1's, a narrow head, no ImageNet weights, small batches.
Command: tools/train.py configs/volo_camvid.py --cfg-options data_root=PATH_TO_CAMVID
Cost: see the README.
Published: no VOLO; others in the README. Ours: see the README.
"""

_base_ = [
    '_base_/models/upernet.py',
    '_base_/datasets/camvid.py',
    '_base_/schedules/scratch_1300.py',
    '_base_/default_runtime.py',
]
dims = [96, 192, 192, 192]
model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    backbone=dict(type='VOLO', arch=dict(depths=[2, 2, 4, 2], dims=dims, num_heads=[3, 6, 6, 6], stem_dim=32)),
    neck=dict(type='StridePyramid', in_channels=dims, in_strides=[8, 16, 16, 16]),
    decode_head=dict(in_channels=dims, channels=96, num_classes=_base_.num_classes),
    auxiliary_head=dict(in_channels=dims[2], channels=64, num_classes=_base_.num_classes),
)
