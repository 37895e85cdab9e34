"""Define the kind of each argument by its name; `types` defines the exceptions."""

from __future__ import annotations

from collections.abc import Mapping

from mmseg_volo.io.allowed.kinds import (
    MOST,
    Either,
    Flag,
    Integer,
    Kind,
    Name,
    Nothing,
    Number,
    Part,
    Several,
    Table,
    Word,
)


def words(*each: str) -> Word:
    """Accept one of these words."""
    return Word(each)


def or_none(*kinds: Kind) -> Either:
    """Accept any of these kinds, or None."""
    return Either((*kinds, Nothing()))


def one_or_several(kind: Kind) -> Either:
    """Accept one value, or a list of them."""
    return Either((kind, Several(kind)))


def part(group: str) -> Part:
    """Accept a component of one of `types.GROUPS`."""

    def types() -> Mapping[str, Mapping[str, Kind]]:
        from mmseg_volo.io.allowed.types import GROUPS

        return GROUPS[group]

    return Part(types)


NONE, FLAG, NUMBER = Nothing(), Flag(), Number()
SHARE = Number(0, 1)
RATIO = Number(0, 64)
CHANNELS = Integer(1, 65536)
SIDE = Integer(1, 16384)  # in pixels
COUNT = Integer(0, 256)  # of blocks, layers and heads
STEP = Integer(0, 256)  # of a convolution: its kernel, stride, padding or dilation
INDEX = Integer(-64, 64)
LABEL = Integer(-1, 65535)
SIZE = Either((SIDE, Several(SIDE, exactly=2)))
EACH_CHANNEL = Several(NUMBER, most=4096)
NORM, ACT, CONV = or_none(part('norms')), or_none(part('activations')), or_none(part('convolutions'))
LOSS = Either((part('losses'), Several(part('losses'), most=16)))
INTERPOLATION = words('nearest', 'bilinear', 'bicubic', 'area', 'lanczos')

_KINDS: list[tuple[Kind, str]] = [
    (
        FLAG,
        'add_extra_convs add_identity add_lateral align_corners avg_down avg_down_stride avg_non_ignore bgr_to_rgb '
        'coarse_pred_each_layer concat_input contract_dilation conv_first deep_stem expand_channels '
        'extra_convs_on_inputs final_norm fusion gate_norm_act gate_sigmoid activate_out inplace kernel_init '
        'multiscale_output naive_dice no_norm_on_lateral norm_after_stage norm_eval out_norm out_origin '
        'output_cls_token patch_bias patch_norm per_image pre_norm qkv_bias qv_bias refine relu_before_extra_convs '
        'requires_grad rgb_to_bgr use_abs_pos_embed use_mask use_scale use_se_loss use_sigmoid with_cls_token '
        'with_cp with_ffn with_final_conv zero_init_residual affine elementwise_affine track_running_stats bias '
        'activate keep_ratio clip_object_border pad_to_square '
        'auto_pad compact psa_softmax to_rgb to_float32 ignore_empty sub_sample',
    ),
    (
        CHANNELS,
        'base_channels bga_channels c1_channels c1_in_channels ema_channels feat_channels feedforward_channels '
        'fusion_out_channels global_in_channels global_out_channels ham_channels higher_in_channels isa_channels '
        'light_branch_middle_channels lower_in_channels mid_channels mla_channels num_classes ocr_channels '
        'pam_channels ppm_channels project_channels psp_out_channels stem_channels embed_dim num_codes num_bases '
        'num_parameters num_groups base_width groups',
    ),
    (
        or_none(one_or_several(CHANNELS)),
        'in_channels channels embed_dims out_channels branch_channels context_channels dec_non_bottleneck_channels '
        'dec_upsample_channels detail_channels downsample_dw_channels enc_downsample_channels '
        'enc_non_bottleneck_channels global_block_channels last_in_channels layer_channels num_channels '
        'post_process_channels semantic_channels spatial_channels',
    ),
    (
        one_or_several(COUNT),
        'num_blocks num_branch_blocks num_convs num_fcs num_ffn_fcs num_heads num_layers num_mask_fcs num_modules '
        'num_branches num_outs num_stages num_stem_blocks depths dec_num_convs dec_stages_non_bottleneck enc_num_convs '
        'enc_stage_non_bottlenecks recurrence shrink_factor reduction reduction_factor reductions radix '
        'semantic_expansion_ratio filter_sizes',
    ),
    (
        one_or_several(STEP),
        'conv_kernel_size dilation dilations dec_dilations enc_dilations enc_non_bottleneck_dilations '
        'feat_gather_stride feature_strides global_block_strides in_strides key_pool_scales kernel_size '
        'mask_transform_stride out_strides padding patch_size patch_sizes pool_scales query_scales sr_ratios stride '
        'strides down_factor windiow_sizes window_size up_scale multi_grid',
    ),
    (one_or_several(INDEX), 'in_index out_indices start_level end_level frozen_stages'),
    (one_or_several(RATIO), 'mlp_ratio mlp_ratios ratio rescales scales widen_factor'),
    (
        SHARE,
        'attn_drop_rate drop_path_rate drop_rate dropout momentum boundary_threshold init_std thresh thres',
    ),
    (
        NUMBER,
        'normalization_factor alpha beta gamma eps loss_weight smooth pad_val init_values negative_slope divisor '
        'max_value min_value',
    ),
    (SIZE, 'crop_size img_size pretrain_img_size'),
    (Several(FLAG), 'downsamples stage_with_dcn'),
    (or_none(LABEL), 'ignore_index ignore_label seg_pad_val'),
    (Integer(0, 10**9), 'min_kept'),
    (NONE, 'dcn backend_args file_client_args batch_augments'),
    (NORM, 'norm_cfg norm_layer'),
    (ACT, 'act_cfg dw_act_cfg ffn_act_cfg'),
    (CONV, 'conv_cfg'),
    (LOSS, 'loss_decode loss_se_decode'),
    (or_none(part('samplers')), 'sampler'),
    (or_none(Several(NUMBER, most=MOST)), 'class_weight'),
    (Name(r'loss_[A-Za-z0-9_]{0,40}'), 'loss_name'),
    (INTERPOLATION, 'interpolation interpolate_mode upsample_mode'),
    (or_none(words('resize_concat', 'multiple_select')), 'input_transform'),
    (or_none(SHARE), 'threshold'),
    (Number(-1, 1), 'dropout_ratio'),
    (words('cv2', 'pillow'), 'backend imdecode_backend'),
    (words('color', 'grayscale', 'unchanged'), 'color_type'),
]
ARGUMENTS = {name: kind for kind, names in _KINDS for name in names.split()}


def typed(names: str, **own: Kind) -> dict[str, Kind]:
    """Return the arguments of a type.

    Args:
        names: of arguments that have their usual kind.
        own: kinds of the other arguments.
    """
    return {name: ARGUMENTS[name] for name in names.split()} | own


TEST_CFG = Table(
    {
        'mode': words('whole', 'slide'),
        'crop_size': or_none(SIZE),
        'stride': or_none(SIZE),
        'window_batch': or_none(Integer(1, 256)),
        'window_weight': words('uniform', 'gaussian'),
        'keep_logits': or_none(FLAG),
        'maps': Several(words('probability', 'confidence', 'entropy')),
        'accumulate_on': or_none(words('cpu', 'cuda')),
        'subdivision_steps': COUNT,
        'subdivision_num_points': Integer(1, 10**6),
        'scale_factor': RATIO,
    }
)
TRAIN_CFG = Table(
    {
        'sampler': or_none(part('samplers')),
        'num_points': Integer(1, 10**6),
        'oversample_ratio': RATIO,
        'importance_sample_ratio': SHARE,
    }
)
