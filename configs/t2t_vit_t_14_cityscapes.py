"""T2T-ViTt-14 + UPerNet on Cityscapes.

Recipe: nothing is published for T2T-ViT on Cityscapes, so ours: that of LV-ViT on ADE20K, as isotropic and of stride 16
as this one [read in zihangJiang/TokenLabeling]: AdamW 6e-5, weight decay 0.01, warm-up of 1500 from 1e-6 of the rate,
linear decay to 0, UPerNet, auxiliary head 0.4, the neck on raw taps (no transposed convolutions are needed at strides 4
and 8); with total batch 8, 1024x1024 crops, 80k iterations, drop path 0.1, slide stride (768, 768) (SegFormer's),
ImageNet-1k weights at 224, widths of the heads (Swin's), the neck's last map (3x3 to stride 32, where LV-ViT has 1x1 to
2048 channels at 16).
Command: torchrun --nproc_per_node 4 tools/train.py configs/t2t_vit_t_14_cityscapes.py --launcher pytorch
         (4 GPUs x 2 images)
Test:    tools/test.py configs/t2t_vit_t_14_cityscapes.py CHECKPOINT --tta
Cost: estimated 8.2 h on 4 A100 at 15 % of their bf16 peak, 7 GB each (tools/recipe_cost.py); not measured.
Published: no number. Ours: not trained by us.
"""

_base_ = [
    '_base_/models/upernet.py',
    '_base_/datasets/cityscapes.py',
    '_base_/schedules/adamw_80k.py',
    '_base_/default_runtime.py',
]
dims = [64, 64, 384, 384]
model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    backbone=dict(
        type='T2TViT',
        arch='t_14',
        drop_path_rate=0.1,
        out_norm=False,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://github.com/yitu-opensource/T2T-ViT/releases/download/main/81.7_T2T_ViTt_14.pth.tar',
        ),
    ),
    neck=dict(type='StridePyramid', in_channels=dims, in_strides=[4, 8, 16, 16], refine=True),
    decode_head=dict(in_channels=dims, num_classes=_base_.num_classes),
    auxiliary_head=dict(in_channels=dims[2], num_classes=_base_.num_classes),
    test_cfg=dict(mode='slide', crop_size=_base_.crop_size, stride=(768, 768)),
)
