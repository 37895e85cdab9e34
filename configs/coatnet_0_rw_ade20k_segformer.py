"""CoAtNet-0-rw + SegFormer head on ADE20K.

Recipe: SegFormer's own (arXiv 2105.15203): AdamW 6e-5, weight decay 0.01, learning rate x10 for the head, warm-up of
1500 from 1e-6 of the rate, linear decay to 0, total batch 16, 160k iterations, 512x512 crops for all but B5 [read in
NVlabs/SegFormer]. Ours: the pairing, drop path 0.2, slide stride (341, 341), timm's weights at 224.
Command: torchrun --nproc_per_node 8 tools/train.py configs/coatnet_0_rw_ade20k_segformer.py --launcher pytorch
         (8 GPUs x 2 images)
Test:    tools/test.py configs/coatnet_0_rw_ade20k_segformer.py CHECKPOINT --tta
Cost: estimated 0.5 h on 8 A100 at 15 % of their bf16 peak, 4 GB each (tools/recipe_cost.py); not measured.
Published: no number for CoAtNet on ADE20K. Ours: not trained by us.
"""

_base_ = [
    '_base_/models/segformer.py',
    '_base_/datasets/ade20k.py',
    '_base_/schedules/adamw_160k.py',
    '_base_/default_runtime.py',
]
dims = [96, 192, 384, 768]
model = dict(
    data_preprocessor=dict(size=_base_.crop_size, mean=[127.5] * 3, std=[127.5] * 3),  # as its weights expect
    backbone=dict(
        type='CoAtNet',
        arch='0_rw',
        drop_path_rate=0.2,
        init_cfg=dict(type='Pretrained', checkpoint='timm://coatnet_0_rw_224.sw_in1k'),
    ),
    decode_head=dict(in_channels=dims, num_classes=_base_.num_classes),
    test_cfg=dict(mode='slide', crop_size=_base_.crop_size, stride=(341, 341)),
)
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(decode_head=dict(lr_mult=10.0))))
