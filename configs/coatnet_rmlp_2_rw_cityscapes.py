"""CoAtNet-rmlp-2-rw + UPerNet on Cityscapes.

Recipe: nothing is published for CoAtNet on Cityscapes, so ours: that of Swin + UPerNet on ADE20K [read in
mmsegmentation]: AdamW 6e-5, weight decay 0.01, warm-up of 1500 from 1e-6 of the rate, linear decay to 0, auxiliary head
0.4; with total batch 8, 1024x1024 crops, 80k iterations, drop path 0.3, slide stride (768, 768) (SegFormer's), timm's
weights at 384.
Command: torchrun --nproc_per_node 4 tools/train.py configs/coatnet_rmlp_2_rw_cityscapes.py --launcher pytorch
         (4 GPUs x 2 images)
Test:    tools/test.py configs/coatnet_rmlp_2_rw_cityscapes.py CHECKPOINT --tta
Cost: estimated 6.3 h on 4 A100 at 15 % of their bf16 peak, 19 GB each (tools/recipe_cost.py); not measured.
Published: no number. Ours: not trained by us.
"""

_base_ = [
    '_base_/models/upernet.py',
    '_base_/datasets/cityscapes.py',
    '_base_/schedules/adamw_80k.py',
    '_base_/default_runtime.py',
]
dims = [128, 256, 512, 1024]
model = dict(
    data_preprocessor=dict(size=_base_.crop_size, mean=[127.5] * 3, std=[127.5] * 3),  # as its weights expect
    backbone=dict(
        type='CoAtNet',
        arch='rmlp_2_rw',
        drop_path_rate=0.3,
        pretrain_img_size=384,
        init_cfg=dict(type='Pretrained', checkpoint='timm://coatnet_rmlp_2_rw_384.sw_in12k_ft_in1k'),
    ),
    decode_head=dict(in_channels=dims, num_classes=_base_.num_classes),
    auxiliary_head=dict(in_channels=dims[2], num_classes=_base_.num_classes),
    test_cfg=dict(mode='slide', crop_size=_base_.crop_size, stride=(768, 768)),
)
