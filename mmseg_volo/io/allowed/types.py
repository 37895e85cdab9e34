"""List the types that a checkpoint may ask for, by their role in a model, with the arguments that each accepts."""

from __future__ import annotations

from collections.abc import Mapping

from mmseg_volo.io.allowed.arguments import (
    ACT,
    CHANNELS,
    CONV,
    COUNT,
    EACH_CHANNEL,
    FLAG,
    INTERPOLATION,
    LABEL,
    NONE,
    NORM,
    NUMBER,
    RATIO,
    SHARE,
    SIDE,
    STEP,
    TEST_CFG,
    TRAIN_CFG,
    one_or_several,
    or_none,
    part,
    typed,
    words,
)
from mmseg_volo.io.allowed.backbones import BACKBONES, RESNETS, STDC
from mmseg_volo.io.allowed.kinds import Either, Integer, Kind, Needed, Several, Table
from mmseg_volo.io.steps import MULTI_BAND_STEPS

_BATCH = typed('eps affine track_running_stats requires_grad', momentum=or_none(SHARE))
_PLAIN_ACT = typed('inplace')
_RANGE = dict(min=NUMBER, max=NUMBER)
NORMS = {
    **dict.fromkeys(('BN', 'BN1d', 'BN2d', 'BN3d', 'SyncBN', 'IN', 'IN1d', 'IN2d', 'IN3d'), _BATCH),
    'GN': typed('num_groups eps affine requires_grad'),
    'LN': typed('eps elementwise_affine bias requires_grad'),
}
ACTIVATIONS: dict[str, Mapping[str, Kind]] = {
    **dict.fromkeys(('ReLU', 'ReLU6', 'SiLU', 'HSwish'), _PLAIN_ACT),
    **dict.fromkeys(('Sigmoid', 'Tanh', 'Swish'), {}),
    **dict.fromkeys(('Clamp', 'Clip'), _RANGE),
    'LeakyReLU': typed('negative_slope inplace'),
    'PReLU': typed('num_parameters', init=NUMBER),
    'ELU': typed('alpha inplace'),
    'GELU': dict(approximate=words('none', 'tanh')),
    'HSigmoid': typed('divisor min_value max_value', bias=NUMBER),
}
CONVOLUTIONS: dict[str, dict[str, Kind]] = dict.fromkeys(
    ('Conv', 'Conv1d', 'Conv2d', 'ConvWS', 'ConvAWS', 'Conv2dAdaptivePadding'), {}
)
UPSAMPLES = {
    'InterpConv': typed(
        'conv_cfg conv_first kernel_size stride padding',
        upsample_cfg=Table(dict(scale_factor=RATIO, mode=INTERPOLATION, align_corners=or_none(FLAG))),
    ),
    'DeconvModule': typed('kernel_size', scale_factor=STEP),
}
_PAIRWISE = words('gaussian', 'embedded_gaussian', 'dot_product', 'concatenation')
_CONTEXT: dict[str, Kind] = dict(
    ratio=SHARE, pooling_type=words('avg', 'att'), fusion_types=Several(words('channel_add', 'channel_mul'), most=2)
)
PLUGINS: dict[str, Mapping[str, Kind]] = {
    'ContextBlock': _CONTEXT,
    'NonLocal2d': typed('reduction use_scale conv_cfg norm_cfg sub_sample', mode=_PAIRWISE),
}
SAMPLERS = {'OHEMPixelSampler': typed('min_kept', thresh=or_none(SHARE))}

_REDUCED = dict(reduction=words('mean', 'sum', 'none'))
_ENTROPY = typed('use_sigmoid use_mask class_weight loss_weight loss_name avg_non_ignore', **_REDUCED)
LOSSES = {
    'CrossEntropyLoss': _ENTROPY,
    'WeightedCrossEntropy': _ENTROPY,
    'DiceLoss': typed('use_sigmoid activate naive_dice loss_weight ignore_index eps loss_name', **_REDUCED),
    'FocalLoss': typed(
        'use_sigmoid gamma class_weight loss_weight loss_name', alpha=one_or_several(NUMBER), **_REDUCED
    ),
    'LovaszLoss': typed(
        'per_image class_weight loss_weight loss_name',
        loss_type=words('binary', 'multi_class'),
        classes=Either((words('all', 'present'), Several(LABEL))),
        **_REDUCED,
    ),
    'TverskyLoss': typed('smooth class_weight loss_weight ignore_index alpha beta loss_name'),
    'OhemCrossEntropy': typed('ignore_label thres min_kept loss_weight class_weight loss_name'),
    'BoundaryLoss': typed('loss_weight loss_name'),
    'HuasdorffDisstanceLoss': typed('class_weight loss_weight ignore_index loss_name', **_REDUCED),
}

_HEAD = typed(
    'in_channels channels num_classes threshold dropout_ratio conv_cfg norm_cfg act_cfg in_index input_transform '
    'loss_decode ignore_index sampler align_corners',
    out_channels=or_none(CHANNELS),
)
_FCN = typed('num_convs kernel_size concat_input dilation')
_NON_LOCAL = typed('reduction use_scale', mode=_PAIRWISE)
_HAM: dict[str, Kind] = dict(
    MD_S=COUNT, MD_R=CHANNELS, train_steps=COUNT, eval_steps=COUNT, inv_t=NUMBER, rand_init=FLAG
)  # of its decomposition
_HEADS: dict[str, Mapping[str, Kind]] = {
    **dict.fromkeys(('UPerHead', 'LeanUPerHead', 'PSPHead'), typed('pool_scales')),
    **dict.fromkeys(('SegformerHead', 'LeanSegformerHead'), typed('interpolate_mode')),
    **dict.fromkeys(('DDRHead', 'PIDHead'), {}),
    'FCNHead': _FCN,
    'DepthwiseSeparableFCNHead': {**_FCN, **typed('dw_act_cfg')},
    'STDCHead': {**_FCN, **typed('boundary_threshold')},
    'ASPPHead': typed('dilations'),
    'DepthwiseSeparableASPPHead': typed('dilations c1_channels', c1_in_channels=Integer(0, 65536)),
    'OCRHead': typed('ocr_channels', scale=STEP),
    'LightHamHead': typed('ham_channels', ham_kwargs=Table(_HAM)),
    'ANNHead': typed('project_channels query_scales key_pool_scales'),
    'APCHead': typed('pool_scales fusion'),
    'CCHead': {**_FCN, **typed('recurrence')},
    'PSAHead': typed(
        'compact psa_softmax shrink_factor normalization_factor',
        mask_size=Several(Integer(1, 256), exactly=2),
        psa_type=words('collect', 'distribute', 'bi-direction'),
    ),
    'DAHead': typed('pam_channels'),
    'DMHead': typed('filter_sizes fusion'),
    'NLHead': {**_FCN, **_NON_LOCAL},
    'DNLHead': {**_FCN, **_NON_LOCAL, **dict(temperature=NUMBER)},
    'GCHead': {**_FCN, **_CONTEXT},
    'EMAHead': typed('ema_channels num_bases num_stages concat_input momentum'),
    'EncHead': typed('num_codes use_se_loss add_lateral loss_se_decode'),
    'FPNHead': typed('feature_strides'),
    'ISAHead': typed('isa_channels down_factor'),
    'LRASPPHead': typed('branch_channels'),
    'PointHead': typed('num_fcs coarse_pred_each_layer'),
    'SETRUPHead': typed('norm_layer num_convs up_scale kernel_size'),
    'SETRMLAHead': typed('mla_channels up_scale'),
    'DPTHead': typed(
        'embed_dims post_process_channels patch_size expand_channels', readout_type=words('ignore', 'add', 'project')
    ),
    'SegmenterMaskTransformerHead': typed(
        'num_layers num_heads embed_dims mlp_ratio drop_path_rate drop_rate attn_drop_rate num_fcs qkv_bias init_std'
    ),
}
HEADS = {name: {**_HEAD, **more} for name, more in _HEADS.items()}
KERNEL_UPDATORS = {
    'KernelUpdator': typed(
        'in_channels feat_channels out_channels gate_sigmoid gate_norm_act activate_out norm_cfg act_cfg'
    )
}
KERNEL_HEADS = {
    'KernelUpdateHead': typed(
        'num_classes num_ffn_fcs num_heads num_mask_fcs feedforward_channels in_channels out_channels dropout act_cfg '
        'ffn_act_cfg conv_kernel_size kernel_init with_ffn feat_gather_stride mask_transform_stride',
        feat_transform_cfg=or_none(Table(dict(conv_cfg=CONV, norm_cfg=NORM, act_cfg=ACT))),
        kernel_updator_cfg=Needed(part('kernel updators')),  # else mmengine imports a module DynamicConv
    )
}
_ITERATIVE = typed(
    'num_stages', kernel_generate_head=part('heads of one step'), kernel_update_head=Several(part('kernel heads'))
)
NECKS = {
    'StridePyramid': typed('in_channels in_strides out_strides out_channels norm_cfg refine'),
    'FPN': typed(
        'in_channels out_channels num_outs start_level end_level extra_convs_on_inputs relu_before_extra_convs '
        'no_norm_on_lateral conv_cfg norm_cfg act_cfg',
        add_extra_convs=Either((FLAG, words('on_input', 'on_lateral', 'on_output'))),
        upsample_cfg=Table(dict(mode=INTERPOLATION, scale_factor=RATIO)),
    ),
    'JPU': typed('in_channels mid_channels start_level end_level dilations align_corners conv_cfg norm_cfg act_cfg'),
    'ICNeck': typed('in_channels out_channels conv_cfg norm_cfg act_cfg align_corners'),
    'MLANeck': typed('in_channels out_channels norm_layer norm_cfg act_cfg'),
    'MultiLevelNeck': typed('in_channels out_channels scales norm_cfg act_cfg'),
    'Feature2Pyramid': typed('embed_dim rescales norm_cfg'),
}
_PADDED = dict(size=or_none(Several(SIDE, exactly=2)), size_divisor=or_none(Integer(1, 1024)))
PREPROCESSORS = {
    'SegDataPreProcessor': typed(
        'pad_val seg_pad_val batch_augments',
        mean=or_none(EACH_CHANNEL),
        std=or_none(EACH_CHANNEL),
        bgr_to_rgb=or_none(FLAG),
        rgb_to_bgr=or_none(FLAG),
        test_cfg=or_none(Table(_PADDED)),
        **_PADDED,
    )
}
_ENCODER_DECODER: dict[str, Kind] = dict(
    backbone=part('backbones'),
    decode_head=part('heads'),
    neck=or_none(part('necks')),
    auxiliary_head=or_none(part('heads'), Several(part('heads'))),
    train_cfg=or_none(TRAIN_CFG),
    test_cfg=or_none(TEST_CFG),
    data_preprocessor=or_none(part('preprocessors')),
)
SEGMENTORS = {
    'StreamingEncoderDecoder': _ENCODER_DECODER,
    'BandedEncoderDecoder': _ENCODER_DECODER,  # its former name
    'EncoderDecoder': _ENCODER_DECODER,
    'CascadeEncoderDecoder': {**_ENCODER_DECODER, **typed('num_stages', decode_head=Several(part('heads')))},
}

_RESCALE = Either((SIDE, Several(SIDE, exactly=2)))
_FACTOR = or_none(Either((Integer(1, 8), SHARE, Several(RATIO, exactly=2))))
_LOADING = typed('to_float32 color_type imdecode_backend file_client_args ignore_empty backend_args')
_KEYS = 'img_path seg_map_path depth_map_path ori_shape img_shape pad_shape scale_factor flip flip_direction '
_KEYS += 'reduce_zero_label scale keep_ratio sample_idx'
_MULTI_BAND: dict[str, Kind] = dict(
    mean=EACH_CHANNEL,
    std=EACH_CHANNEL,
    dtype=or_none(words(*'uint8 int8 uint16 int16 uint32 int32 uint64 int64 float16 float32 float64 bool'.split())),
)
TRANSFORMS: dict[str, Mapping[str, Kind]] = {
    'LoadRGBImage': {},
    'LoadMask': {},
    **dict.fromkeys(MULTI_BAND_STEPS, _MULTI_BAND),
    'LoadImageFromFile': _LOADING,
    'LoadImageFromNDArray': _LOADING,
    'LoadAnnotations': typed('imdecode_backend backend_args', reduce_zero_label=or_none(FLAG)),
    'Resize': typed(
        'keep_ratio clip_object_border backend interpolation', scale=or_none(_RESCALE), scale_factor=_FACTOR
    ),
    'ResizeShortestEdge': dict(scale=_RESCALE, max_size=SIDE),
    'ResizeToMultiple': typed('', size_divisor=Integer(1, 1024), interpolation=or_none(INTERPOLATION)),
    'Pad': typed(
        'pad_to_square',
        pad_val=Either((NUMBER, Table(dict(img=one_or_several(NUMBER), seg=NUMBER)))),
        padding_mode=words('constant', 'edge', 'reflect', 'symmetric'),
        **_PADDED,
    ),
    'Normalize': typed('to_rgb', mean=EACH_CHANNEL, std=EACH_CHANNEL),
    'CLAHE': dict(clip_limit=NUMBER, tile_grid_size=Several(Integer(1, 1024), exactly=2)),
    'AdjustGamma': typed('gamma'),
    'RGB2Gray': dict(out_channels=or_none(Integer(1, 4096)), weights=Several(NUMBER, exactly=3)),
    'Rerange': typed('min_value max_value'),
    'CenterCrop': typed('crop_size auto_pad'),
    'RandomFlip': dict(
        prob=or_none(SHARE),
        direction=one_or_several(words('horizontal', 'vertical', 'diagonal')),
        swap_seg_labels=NONE,
    ),
    'PackSegInputs': dict(meta_keys=Several(words(*_KEYS.split()))),
}
GROUPS: dict[str, Mapping[str, Mapping[str, Kind]]] = {
    'segmentors': SEGMENTORS,
    'preprocessors': PREPROCESSORS,
    'backbones': BACKBONES,
    'resnets': RESNETS,
    'stdc': STDC,
    'necks': NECKS,
    'heads': {**HEADS, 'IterativeDecodeHead': _ITERATIVE},
    'heads of one step': HEADS,
    'kernel heads': KERNEL_HEADS,
    'kernel updators': KERNEL_UPDATORS,
    'losses': LOSSES,
    'samplers': SAMPLERS,
    'norms': NORMS,
    'activations': ACTIVATIONS,
    'convolutions': CONVOLUTIONS,
    'upsamples': UPSAMPLES,
    'plugins': PLUGINS,
    'transforms': TRANSFORMS,
}
MODEL = part('segmentors')
PIPELINE = Several(part('transforms'))
