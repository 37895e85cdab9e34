"""VOLO-D3 + UPerNet on Cityscapes.

Recipe: AdamW 6e-5, weight decay 0.01, linear decay to 5e-6 [recalled], 1024x1024 crops [third party], total batch 8
[recalled], UPerNet with sliding-window test [author, sail-sg/volo issue 4]; iterations, warm-up and the four maps as
in LV-ViT of the same group [read in zihangJiang/TokenLabeling]. Not published, so ours: drop path 0.3, slide stride
(768, 768), ImageNet weights at 448, auxiliary head 0.4 (LV-ViT's).
Command: torchrun --nproc_per_node 4 tools/train.py configs/volo_d3_cityscapes.py --launcher pytorch
         (4 GPUs x 2 images)
Test:    tools/test.py configs/volo_d3_cityscapes.py CHECKPOINT --tta
Cost: estimated 8.2 h on 4 A100 at 15 % of their bf16 peak, 14 GB each (tools/recipe_cost.py); not measured.
      VOLO's authors took 8 A100 [recalled].
Published: no number for D3. Ours: not trained by us.
"""

_base_ = [
    '_base_/models/upernet.py',
    '_base_/datasets/cityscapes.py',
    '_base_/schedules/adamw_80k.py',
    '_base_/default_runtime.py',
]
dims = [256, 512, 512, 512]
model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    backbone=dict(
        type='VOLO',
        arch='d3',
        drop_path_rate=0.3,
        pretrain_img_size=448,
        init_cfg=dict(type='Pretrained', checkpoint='timm://volo_d3_448.sail_in1k'),
    ),
    neck=dict(type='StridePyramid', in_channels=dims, in_strides=[8, 16, 16, 16]),
    decode_head=dict(in_channels=dims, num_classes=_base_.num_classes),
    auxiliary_head=dict(in_channels=dims[2], num_classes=_base_.num_classes),
    test_cfg=dict(mode='slide', crop_size=_base_.crop_size, stride=(768, 768)),
)
