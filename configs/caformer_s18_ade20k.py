"""CAFormer-S18 + UPerNet on ADE20K.

Recipe: AdamW 1e-4, total batch 16, 160k iterations, 512x512 crops, UPerNet [recalled]; drop path 0.3, weight decay
0.05, warm-up of 1500, slide stride (341, 341) [one third-party config]. The authors' layer decay is unknown; here 0.9
stage-wise, as ConvNeXt has it with this rate and weight decay [read in facebookresearch/ConvNeXt] (a later work of the
first author went without: yuweihao/MambaOut issue 251 [read]). Ours: warm-up from 1e-6 of the rate and linear decay to
0 (ConvNeXt's [read]), auxiliary head 0.4, ImageNet-1k weights at 224.
Command: torchrun --nproc_per_node 8 tools/train.py configs/caformer_s18_ade20k.py --launcher pytorch
         (8 GPUs x 2 images)
Test:    tools/test.py configs/caformer_s18_ade20k.py CHECKPOINT --tta
Cost: estimated 1.6 h on 8 A100 at 15 % of their bf16 peak, 5 GB each (tools/recipe_cost.py); not measured.
Published: 48.1 mIoU single scale, 48.9 multi-scale [third party]. Ours: not trained by us.
"""

_base_ = [
    '_base_/models/upernet.py',
    '_base_/datasets/ade20k.py',
    '_base_/schedules/adamw_160k.py',
    '_base_/default_runtime.py',
]
dims = [64, 128, 320, 512]
model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    backbone=dict(
        type='CAFormer',
        arch='s18',
        drop_path_rate=0.3,
        init_cfg=dict(type='Pretrained', checkpoint='timm://caformer_s18.sail_in1k'),
    ),
    decode_head=dict(in_channels=dims, num_classes=_base_.num_classes),
    auxiliary_head=dict(in_channels=dims[2], num_classes=_base_.num_classes),
    test_cfg=dict(mode='slide', crop_size=_base_.crop_size, stride=(341, 341)),
)
optim_wrapper = dict(
    optimizer=dict(lr=1e-4, weight_decay=0.05),
    paramwise_cfg=dict(layer_decay_rate=0.9, decay_type='stage_wise'),
)
