"""SegFormer's all-MLP head (arXiv 2105.15203); width 768 as in its B5 [read in NVlabs/SegFormer].

As there the loss is averaged over all pixels of a crop, ignored ones included (mmseg's default, avg_non_ignore=False).
"""

model = dict(
    type='StreamingEncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor',
        mean=[123.675, 116.28, 103.53],  # RGB, ImageNet
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
        test_cfg=dict(size_divisor=32),  # the largest stride, so that maps align; windows are cut before
    ),
    decode_head=dict(
        type='LeanSegformerHead',
        in_index=[0, 1, 2, 3],
        channels=768,
        dropout_ratio=0.1,
        norm_cfg=dict(type='SyncBN', requires_grad=True),
        align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', loss_weight=1.0),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
