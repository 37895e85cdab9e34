"""CoAtNet-2-rw + UPerNet on ADE20K.

Recipe: nothing is published for CoAtNet on ADE20K, so ours: that of Swin + UPerNet [read in mmsegmentation]: AdamW
6e-5, weight decay 0.01, warm-up of 1500 from 1e-6 of the rate, linear decay to 0, auxiliary head 0.4, total batch 16,
512x512 crops, 160k iterations; with drop path 0.3, slide stride (341, 341), timm's weights at 224.
Command: torchrun --nproc_per_node 8 tools/train.py configs/coatnet_2_rw_ade20k.py --launcher pytorch
         (8 GPUs x 2 images)
Test:    tools/test.py configs/coatnet_2_rw_ade20k.py CHECKPOINT --tta
Cost: estimated 2.3 h on 8 A100 at 15 % of their bf16 peak, 8 GB each (tools/recipe_cost.py); not measured.
Published: no number. Ours: not trained by us.
"""

_base_ = [
    '_base_/models/upernet.py',
    '_base_/datasets/ade20k.py',
    '_base_/schedules/adamw_160k.py',
    '_base_/default_runtime.py',
]
dims = [128, 256, 512, 1024]
model = dict(
    data_preprocessor=dict(size=_base_.crop_size, mean=[127.5] * 3, std=[127.5] * 3),  # as its weights expect
    backbone=dict(
        type='CoAtNet',
        arch='2_rw',
        drop_path_rate=0.3,
        init_cfg=dict(type='Pretrained', checkpoint='timm://coatnet_2_rw_224.sw_in12k_ft_in1k'),
    ),
    decode_head=dict(in_channels=dims, num_classes=_base_.num_classes),
    auxiliary_head=dict(in_channels=dims[2], num_classes=_base_.num_classes),
    test_cfg=dict(mode='slide', crop_size=_base_.crop_size, stride=(341, 341)),
)
