"""CamVid, 11 classes, void ignored, in the layout of data/README.md; resized to about 2/3 of its 480x360 pixels.

Validation is the test split: the official val is one clip of near-duplicates.
"""

data_root = 'data/camvid/'
crop_size = (192, 256)
num_classes = 11
# the square root of ENet's 1 / ln(1.02 + share of the training pixels), which has a mean of 1
class_weight = [0.52, 0.46, 1.27, 0.40, 0.86, 0.65, 1.23, 1.24, 0.79, 1.35, 1.45]

# a fifth of the training frames and a quarter of the test frames are from dusk: equalise contrast in both
even = dict(type='CLAHE', clip_limit=3.0)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    even,
    dict(type='LoadAnnotations'),
    dict(type='RandomResize', scale=(304, 228), ratio_range=(0.95, 1.35), keep_ratio=True),
    dict(type='RandomCrop', crop_size=crop_size, cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    even,
    dict(type='Resize', scale=(336, 252), keep_ratio=True),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    even,
    dict(
        type='TestTimeAug',
        transforms=[
            [
                dict(type='Resize', scale=(int(336 * r), int(252 * r)), keep_ratio=True)
                for r in (0.75, 1.0, 1.25, 1.5, 1.75)
            ],
            [dict(type='RandomFlip', prob=p, direction='horizontal') for p in (0.0, 1.0)],
            [dict(type='LoadAnnotations')],
            [dict(type='PackSegInputs')],
        ],
    ),
]
train_dataloader = dict(
    batch_size=4,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='ResumableInfiniteSampler', shuffle=True),
    dataset=dict(
        type='CamVidDataset',
        data_root=data_root,
        data_prefix=dict(img_path='images/train', seg_map_path='labels/train'),
        pipeline=train_pipeline,
    ),
)
auto_scale_lr = dict(enable=False, base_batch_size=4)  # images per update in the recipes; --auto-scale-lr enables
val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='CamVidDataset',
        data_root=data_root,
        data_prefix=dict(img_path='images/test', seg_map_path='labels/test'),
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='SegIoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator
