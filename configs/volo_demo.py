"""A small VOLO + SegFormer head from scratch on the procedural scenes: what `make demo` trains.

Recipe: ours, made to fit a CPU: stages narrower than D1's, no ImageNet weights, Muon, few iterations, a neck without
LV-ViT's 1x1 convolutions behind the backbone's norms, the loss averaged over the labelled pixels.
Command: make demo, or tools/train.py configs/volo_demo.py once the scenes are in data/demo
Cost: see the README.
Published: none. Ours: see the README.
"""

_base_ = [
    '_base_/models/segformer.py',
    '_base_/datasets/demo.py',
    '_base_/schedules/muon.py',
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
        loss_decode=dict(avg_non_ignore=True),
    ),
)
