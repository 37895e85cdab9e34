"""Train on a folder of your own: change the settings on top, the rest follows from them.

Recipe: ours, a network that trains in seconds on images of 64x64 pixels; take a config of configs/ for real ones.
Command: tools/train.py examples/own_data.py --cfg-options data_root=FOLDER
"""

_base_ = [
    '../configs/_base_/models/segformer.py',
    '../configs/_base_/schedules/muon.py',
    '../configs/_base_/default_runtime.py',
]
data_root = 'data/shapes/'  # images/train, images/val, masks/train, masks/val below it
classes = ('background', 'disc', 'square')  # a mask holds their indices; 255 is ignored
palette = [[60, 60, 60], [220, 60, 60], [60, 120, 220]]  # RGB
crop_size = (64, 64)

dims = [16, 32, 64, 64]
model = dict(
    data_preprocessor=dict(size=crop_size),
    backbone=dict(type='CAFormer', arch=dict(depths=[1, 1, 2, 1], dims=dims)),
    decode_head=dict(in_channels=dims, channels=64, num_classes=len(classes)),
)
train_pipeline = [
    dict(type='LoadRandomCrop', scale=crop_size, ratio_range=(1.0, 1.5), crop_size=crop_size),
    dict(type='ContiguousRandomFlip', prob=0.5),
    dict(type='PackSegInputs'),
]
test_pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')]
files = dict(type='BaseSegDataset', data_root=data_root, img_suffix='.jpg', seg_map_suffix='.png')
files['metainfo'] = dict(classes=classes, palette=palette)
train_dataloader = dict(
    batch_size=4,
    num_workers=0,
    sampler=dict(type='ResumableInfiniteSampler', shuffle=True),
    dataset=dict(
        **files, data_prefix=dict(img_path='images/train', seg_map_path='masks/train'), pipeline=train_pipeline
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(**files, data_prefix=dict(img_path='images/val', seg_map_path='masks/val'), pipeline=test_pipeline),
)
test_dataloader = val_dataloader
val_evaluator = test_evaluator = dict(type='SegIoUMetric', iou_metrics=['mIoU'])
