"""VOLO-D1 + SegFormer head on ADE20K, the four maps as they are (strides 8, 16, 16, 16; no pyramid).

Recipe: SegFormer's own (arXiv 2105.15203): AdamW 6e-5, weight decay 0.01, learning rate x10 for the head, warm-up of
1500 from 1e-6 of the rate, linear decay to 0, total batch 16, 160k iterations, 512x512 crops for all but B5 [read in
NVlabs/SegFormer]. Ours: the pairing, drop path 0.1, slide stride (341, 341), ImageNet weights at 384.
Command: torchrun --nproc_per_node 8 tools/train.py configs/volo_d1_ade20k_segformer.py --launcher pytorch
         (8 GPUs x 2 images)
Test:    tools/test.py configs/volo_d1_ade20k_segformer.py CHECKPOINT --tta
Cost: estimated 0.6 h on 8 A100 at 15 % of their bf16 peak, 3 GB each (tools/recipe_cost.py); not measured.
Published: no number for this pair. Ours: not trained by us.
"""

_base_ = [
    '_base_/models/segformer.py',
    '_base_/datasets/ade20k.py',
    '_base_/schedules/adamw_160k.py',
    '_base_/default_runtime.py',
]
model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    backbone=dict(
        type='VOLO',
        arch='d1',
        drop_path_rate=0.1,
        pretrain_img_size=384,
        init_cfg=dict(type='Pretrained', checkpoint='timm://volo_d1_384.sail_in1k'),
    ),
    decode_head=dict(in_channels=[192, 384, 384, 384], num_classes=_base_.num_classes),
    test_cfg=dict(mode='slide', crop_size=_base_.crop_size, stride=(341, 341)),
)
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(decode_head=dict(lr_mult=10.0))))
