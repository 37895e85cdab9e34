"""A small VOLO + SegFormer head from scratch on CamVid, minutes on a CPU.

Recipe: ours, made to fit two CPU cores: stages a third as wide as D1's, no ImageNet weights, whole frames at 2/3 of
their size, small batches, ENet's class weights (arXiv 1606.02147).
Command: tools/train.py configs/volo_camvid.py --cfg-options data_root=PATH_TO_CAMVID
Cost: see the README.
Published: no VOLO; others in the README. Ours: see the README.
"""

_base_ = [
    '_base_/models/segformer.py',
    '_base_/datasets/camvid.py',
    '_base_/schedules/scratch_1300.py',
    '_base_/default_runtime.py',
]
dims = [64, 128, 128, 128]
model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    backbone=dict(type='VOLO', arch=dict(depths=[2, 2, 4, 2], dims=dims, num_heads=[2, 4, 4, 4], stem_dim=32)),
    neck=dict(type='StridePyramid', in_channels=dims, in_strides=[8, 16, 16, 16]),
    decode_head=dict(
        in_channels=dims,
        channels=128,
        num_classes=_base_.num_classes,
        loss_decode=dict(type='WeightedCrossEntropy', class_weight=_base_.class_weight),
    ),
)
