"""ConvFormer-S18 + UPerNet on Cityscapes.

Recipe: AdamW 1e-4, weight decay 0.05, drop path 0.3, warm-up of 1500 from 1e-6 of the rate, linear decay to 0, layer
decay 0.9 stage-wise, UPerNet, as for ADE20K, see there. Nothing is published for Cityscapes, so ours: total batch 8,
80k iterations, 1024x1024 crops, slide stride (768, 768) (SegFormer's), auxiliary head 0.4, ImageNet-1k weights at 224.
Command: torchrun --nproc_per_node 4 tools/train.py configs/convformer_s18_cityscapes.py --launcher pytorch
         (4 GPUs x 2 images)
Test:    tools/test.py configs/convformer_s18_cityscapes.py CHECKPOINT --tta
Cost: estimated 3.0 h on 4 A100 at 15 % of their bf16 peak, 12 GB each (tools/recipe_cost.py); not measured.
Published: no number. Ours: not trained by us.
"""

_base_ = [
    '_base_/models/upernet.py',
    '_base_/datasets/cityscapes.py',
    '_base_/schedules/adamw_80k.py',
    '_base_/default_runtime.py',
]
dims = [64, 128, 320, 512]
model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    backbone=dict(
        type='ConvFormer',
        arch='s18',
        drop_path_rate=0.3,
        init_cfg=dict(type='Pretrained', checkpoint='timm://convformer_s18.sail_in1k'),
    ),
    decode_head=dict(in_channels=dims, num_classes=_base_.num_classes),
    auxiliary_head=dict(in_channels=dims[2], num_classes=_base_.num_classes),
    test_cfg=dict(mode='slide', crop_size=_base_.crop_size, stride=(768, 768)),
)
optim_wrapper = dict(
    optimizer=dict(lr=1e-4, weight_decay=0.05),
    paramwise_cfg=dict(layer_decay_rate=0.9, decay_type='stage_wise'),
)
