"""VOLO-D3 + UPerNet on Cityscapes.

Recipe: AdamW 6e-5, weight decay 0.01, linear decay to 5e-6 [recalled], 1024x1024 crops [third party], total batch 8
[recalled], UPerNet with sliding-window test [author, sail-sg/volo issue 4]. Not published, so as in LV-ViT of the same
group [read in zihangJiang/TokenLabeling]: warm-up of 1500 from 1e-6 of the rate, auxiliary head 0.4, the neck (raw
taps; 1x1 convolutions behind the transposed ones). Slide stride (768, 768) is SegFormer's. Ours: 80k iterations, half
of what SegFormer has for Cityscapes at this batch [read in NVlabs/SegFormer] and LV-ViT for ADE20K; drop path 0.5, that
of pretraining [read in sail-sg/volo] (LV-ViT-L's config says 0.5 too [read], but its code makes that the dropout of the
MLPs), ImageNet weights at 448, widths of the heads (Swin's), the neck's last map (3x3 to stride 32, where LV-ViT has
1x1 to 2048 channels at 16).
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
        drop_path_rate=0.5,
        out_norm=False,
        pretrain_img_size=448,
        init_cfg=dict(type='Pretrained', checkpoint='timm://volo_d3_448.sail_in1k'),
    ),
    neck=dict(type='StridePyramid', in_channels=dims, in_strides=[8, 16, 16, 16], refine=True),
    decode_head=dict(in_channels=dims, num_classes=_base_.num_classes),
    auxiliary_head=dict(in_channels=dims[2], num_classes=_base_.num_classes),
    test_cfg=dict(mode='slide', crop_size=_base_.crop_size, stride=(768, 768)),
)
param_scheduler = [_base_.param_scheduler[0], {**_base_.param_scheduler[1], 'eta_min': 5e-6}]  # [recalled]
