"""UPerNet (arXiv 1807.10221) with an FCN auxiliary head on the third map, of loss weight 0.4.

Widths, 512 and 256, and all else are those of Swin's and ConvNeXt's recipes [read]. LV-ViT's has the same heads of
widths 256 and 256 (S, M) or 512 and 512 (L) [read in zihangJiang/TokenLabeling]. As in all of these the loss is the
mean over all pixels of a crop, ignored ones included (mmseg's default, avg_non_ignore=False).
"""

norm_cfg = dict(type='SyncBN', requires_grad=True)
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
        type='LeanUPerHead',
        in_index=[0, 1, 2, 3],
        channels=512,
        pool_scales=(1, 2, 3, 6),
        dropout_ratio=0.1,
        norm_cfg=norm_cfg,
        align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', loss_weight=1.0),
    ),
    auxiliary_head=dict(
        type='FCNHead',
        in_index=2,
        channels=256,
        num_convs=1,
        concat_input=False,
        dropout_ratio=0.1,
        norm_cfg=norm_cfg,
        align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', loss_weight=0.4),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
