"""List the backbones that a checkpoint may ask for: this package's, and those of mmseg that read no file when built."""

from __future__ import annotations

from collections.abc import Mapping

from mmseg_volo.io.allowed.arguments import (
    CHANNELS,
    COUNT,
    FLAG,
    NUMBER,
    RATIO,
    STEP,
    one_or_several,
    or_none,
    part,
    typed,
    words,
)
from mmseg_volo.io.allowed.kinds import Either, Integer, Kind, Nothing, Several, Table

PRETRAINED = Integer(1, 1024)  # side in pixels of the images that a backbone was trained on
_CHOSEN = Several(CHANNELS, most=8)
_DEPTHS = Several(COUNT, most=8)
_ACTS = words('gelu', 'relu', 'silu')
_OURS = 'out_indices in_channels drop_path_rate frozen_stages with_cp out_norm'
_METAFORMER: dict[str, Kind] = dict(
    mixers=or_none(Several(words('identity', 'random', 'pooling', 'conv', 'attention'), exactly=4)),
    pretrain_img_size=PRETRAINED,
)
_METAFORMER_SIZE = {'depths': _DEPTHS, 'dims': _CHOSEN}
_COATNET_SIZE: dict[str, Kind] = {
    'depths': _DEPTHS,
    'dims': _CHOSEN,
    'stem_width': _CHOSEN,
    'dim_head': CHANNELS,
    'lead': Several(CHANNELS, most=2),
    'act_layer': _ACTS,
    'attn_act_layer': _ACTS,
    'pre_norm_act': FLAG,
    'stride_mode': words('dw', '1x1', 'pool'),
    'expand_output': FLAG,
    'output_bias': FLAG,
    'attn_early': FLAG,
    'expand_first': FLAG,
    'shortcut_bias': FLAG,
    'norm_layer': words('layernorm2d', 'batchnorm2d'),
    'init_values': or_none(NUMBER),
    'rel_pos_type': words('bias', 'mlp'),
    'rel_pos_dim': CHANNELS,
    'rel_pos_resize': words('bilinear', 'geometric'),
    'pool_type': words('avg2', 'max'),
}
_VOLO_SIZE: dict[str, Kind] = {
    'depths': _DEPTHS,
    'dims': _CHOSEN,
    'num_heads': _DEPTHS,
    'mlp_ratio': RATIO,
    'stem_dim': CHANNELS,
}
_T2T_SIZE: dict[str, Kind] = {
    'depths': _DEPTHS,
    'dim': CHANNELS,
    'num_heads': COUNT,
    'mlp_ratio': RATIO,
    'tokens_type': words('performer', 'transformer'),
    'token_dim': CHANNELS,
}


def _sizes(names: str, size: Mapping[str, Kind]) -> Either:
    """Return the kind of `arch`: a name of a family's table, or a dict of its fields."""
    return Either((words(*names.split()), Table(size)))


_PLUGIN = Table(
    {
        'cfg': part('plugins'),
        'stages': Several(FLAG),
        'position': words('after_conv1', 'after_conv2', 'after_conv3'),
    }
)
_RESNET = typed(
    'in_channels stem_channels base_channels num_stages strides dilations out_indices deep_stem avg_down frozen_stages '
    'conv_cfg norm_cfg norm_eval dcn stage_with_dcn multi_grid contract_dilation with_cp zero_init_residual',
    depth=Integer(1, 200),
    style=words('pytorch', 'caffe'),
    plugins=or_none(Several(_PLUGIN)),
)
_GROUPED = {**_RESNET, **typed('groups base_width')}
_HRNET_STAGE = Table(
    typed('num_modules num_branches num_channels', block=words('BASIC', 'BOTTLENECK'), num_blocks=Several(COUNT))
)
_VIT = 'img_size patch_size in_channels embed_dims num_layers num_heads mlp_ratio out_indices attn_drop_rate '
_VIT += 'drop_path_rate norm_cfg act_cfg patch_norm final_norm num_fcs norm_eval'
_TWINS = 'in_channels embed_dims patch_sizes strides num_heads mlp_ratios out_indices qkv_bias drop_rate '
_TWINS += 'attn_drop_rate drop_path_rate norm_cfg depths sr_ratios norm_after_stage'
_KERNELS = Several(one_or_several(STEP), most=8)

RESNETS = {'ResNet': _RESNET, 'ResNetV1c': _RESNET, 'ResNetV1d': _RESNET}
STDC = {
    'STDCNet': typed(
        'in_channels channels norm_cfg act_cfg num_convs with_final_conv',
        stdc_type=words('STDCNet1', 'STDCNet2'),
        bottleneck_type=words('add', 'cat'),
    )
}
BACKBONES = {
    'VOLO': typed(_OURS, arch=_sizes('d1 d2 d3 d4 d5', _VOLO_SIZE), pretrain_img_size=PRETRAINED),
    'T2TViT': typed(_OURS, arch=_sizes('7 10 12 14 19 24 t_14 t_19 t_24', _T2T_SIZE), pretrain_img_size=PRETRAINED),
    'CoAtNet': typed(
        _OURS,
        arch=_sizes(
            '0 1 2 3 4 5 6 7 nano_rw rmlp_nano_rw 0_rw bn_0_rw 1_rw rmlp_1_rw rmlp_1_rw2 2_rw rmlp_2_rw 3_rw',
            _COATNET_SIZE,
        ),
        stages=words('CCCC', 'CCCT', 'CCTT', 'CTTT'),
        pretrain_img_size=PRETRAINED,
    ),
    **{
        name: typed(_OURS, arch=_sizes('s12 s24 s36 m36 m48', _METAFORMER_SIZE), **_METAFORMER)
        for name in ('IdentityFormer', 'RandFormer', 'PoolFormerV2')
    },
    **{
        name: typed(_OURS, arch=_sizes('s18 s36 m36 b36', _METAFORMER_SIZE), **_METAFORMER)
        for name in ('ConvFormer', 'CAFormer')
    },
    **RESNETS,
    'ResNeXt': _GROUPED,
    'ResNeSt': {**_GROUPED, **typed('radix reduction_factor avg_down_stride')},
    'HRNet': typed(
        'in_channels conv_cfg norm_cfg norm_eval with_cp frozen_stages zero_init_residual multiscale_output',
        extra=Table({f'stage{i}': _HRNET_STAGE for i in (1, 2, 3, 4)}),
    ),
    'MobileNetV2': typed(
        'widen_factor strides dilations out_indices frozen_stages conv_cfg norm_cfg act_cfg norm_eval with_cp'
    ),
    'MobileNetV3': typed(
        'conv_cfg norm_cfg out_indices frozen_stages reduction_factor norm_eval with_cp', arch=words('small', 'large')
    ),
    'VisionTransformer': typed(
        f'{_VIT} out_origin qkv_bias drop_rate with_cls_token output_cls_token patch_bias pre_norm interpolate_mode '
        'with_cp',
        patch_pad=or_none(words('corner', 'same'), STEP),
        frozen_exclude=Several(words('all', 'pos_embed', 'cls_token')),
    ),
    'BEiT': typed(f'{_VIT} qv_bias init_values'),
    'MAE': typed(f'{_VIT} init_values'),
    'MixVisionTransformer': typed(
        'in_channels embed_dims num_stages num_layers num_heads patch_sizes strides sr_ratios out_indices mlp_ratio '
        'qkv_bias drop_rate attn_drop_rate drop_path_rate act_cfg norm_cfg with_cp'
    ),
    'SwinTransformer': typed(
        'pretrain_img_size in_channels embed_dims patch_size mlp_ratio depths num_heads strides out_indices qkv_bias '
        'patch_norm drop_rate attn_drop_rate drop_path_rate use_abs_pos_embed act_cfg norm_cfg with_cp frozen_stages',
        window_size=Integer(1, 64),
        qk_scale=or_none(NUMBER),
    ),
    'PCPVT': typed(_TWINS),
    'SVT': typed(_TWINS, windiow_sizes=Several(Integer(1, 64), most=8)),
    'MSCAN': typed(
        'in_channels embed_dims mlp_ratios drop_rate drop_path_rate depths num_stages act_cfg norm_cfg',
        attention_kernel_sizes=_KERNELS,
        attention_kernel_paddings=_KERNELS,
    ),
    'UNet': typed(
        'in_channels base_channels num_stages strides enc_num_convs dec_num_convs downsamples enc_dilations '
        'dec_dilations with_cp conv_cfg norm_cfg act_cfg norm_eval dcn',
        upsample_cfg=part('upsamples'),
        plugins=Nothing(),
    ),
    'BiSeNetV1': typed(
        'in_channels spatial_channels context_channels out_indices align_corners out_channels conv_cfg norm_cfg '
        'act_cfg',
        backbone_cfg=part('resnets'),
    ),
    'BiSeNetV2': typed(
        'in_channels detail_channels semantic_channels semantic_expansion_ratio bga_channels out_indices align_corners '
        'conv_cfg norm_cfg act_cfg'
    ),
    **STDC,
    'STDCContextPathNet': typed(
        'last_in_channels out_channels upsample_mode norm_cfg',
        backbone_cfg=part('stdc'),
        ffm_cfg=Table(typed('in_channels out_channels', scale_factor=STEP)),
        align_corners=or_none(FLAG),
    ),
    'ICNet': typed(
        'in_channels layer_channels light_branch_middle_channels psp_out_channels out_channels pool_scales conv_cfg '
        'norm_cfg act_cfg align_corners',
        backbone_cfg=part('resnets'),
    ),
    'CGNet': typed(
        'in_channels num_channels num_blocks dilations reductions conv_cfg norm_cfg act_cfg norm_eval with_cp'
    ),
    'DDRNet': typed('in_channels channels ppm_channels align_corners norm_cfg act_cfg'),
    'PIDNet': typed(
        'in_channels channels ppm_channels num_stem_blocks num_branch_blocks align_corners norm_cfg act_cfg'
    ),
    'ERFNet': typed(
        'in_channels enc_downsample_channels enc_stage_non_bottlenecks enc_non_bottleneck_dilations '
        'enc_non_bottleneck_channels dec_upsample_channels dec_stages_non_bottleneck dec_non_bottleneck_channels '
        'dropout_ratio conv_cfg norm_cfg act_cfg'
    ),
    'FastSCNN': typed(
        'in_channels downsample_dw_channels global_in_channels global_block_channels global_block_strides '
        'global_out_channels higher_in_channels lower_in_channels fusion_out_channels out_indices conv_cfg norm_cfg '
        'act_cfg align_corners dw_act_cfg'
    ),
}
