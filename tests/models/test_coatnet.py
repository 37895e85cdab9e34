"""CoAtNet against timm's, with the same weights through our own loader, and against the paper's counts."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import pytest
import timm
import torch
from helpers.tiny_coatnet import SMALL, fields, randomise
from timm.models.maxxvit import MaxxVit, checkpoint_filter_fn, model_cfgs
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mmseg_volo.models.backbones import coatnet, rel_attention
from mmseg_volo.models.backbones.coatnet import ARCHS, CoAtNet

# parameters of the four stages without out_norms: timm's count without norm and head; 6 and 7 are in no other library
PARAMS = {
    **{'0': 23_675_692, '1': 40_864_648, '2': 72_608_096, '3': 163_065_360, '4': 271_524_384, '5': 680_803_504},
    **{'6': 1_458_605_832, '7': 2_429_453_328, 'nano_rw': 14_627_220, 'rmlp_nano_rw': 14_631_092},
    **{'0_rw': 26_665_026, 'bn_0_rw': 26_665_026, '1_rw': 40_950_966, 'rmlp_1_rw': 40_921_446},
    **{'rmlp_1_rw2': 40_954_086, '2_rw': 72_841_352, 'rmlp_2_rw': 72_854_216, '3_rw': 163_633_356},
}
# classifier included, in millions. 0 to 7: tables 4 and 5 of the paper; the others: the table of timm's model cards,
# but for 3_rw, whose weights have 12k classes: timm's code, built with 1000
PUBLISHED = {
    **{'0': 25, '1': 42, '2': 75, '3': 168, '4': 275, '5': 688, '6': 1470, '7': 2440},
    **{'nano_rw': 15.14, 'rmlp_nano_rw': 15.15, '0_rw': 27.44, 'bn_0_rw': 27.44, '1_rw': 41.72, 'rmlp_1_rw': 41.69},
    **{'rmlp_1_rw2': 41.72, '2_rw': 73.87, 'rmlp_2_rw': 73.88, '3_rw': 165.17},
}
REFERENCED = [name for name in ARCHS if name not in '67']  # those that timm has


def timm_twin(name: str, img_size: int | tuple[int, int] = 64, **changes) -> MaxxVit:
    """timm's configuration of that name, shrunken, every weight and statistic random."""
    cfg = dataclasses.replace(
        model_cfgs[f'coatnet_{name}'],
        **{'embed_dim': SMALL['dims'], 'depths': SMALL['depths'], 'stem_width': SMALL['stem_width'], **changes},
    )
    cfg.transformer_cfg = dataclasses.replace(cfg.transformer_cfg, dim_head=ARCHS[name].dim_head)
    return randomise(MaxxVit(cfg, img_size=img_size, num_classes=10)).eval()


def timm_maps(model: MaxxVit, image: Tensor) -> list[Tensor]:
    return model.forward_intermediates(image, indices=[1, 2, 3, 4], intermediates_only=True)


def loaded(theirs: MaxxVit, arch: str | dict, tmp_path: Path, **kwargs) -> CoAtNet:
    torch.save({'state_dict': theirs.state_dict()}, tmp_path / 'timm.pth')
    init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'timm.pth'))
    ours = CoAtNet(arch, out_norm=False, init_cfg=init_cfg, **{'pretrain_img_size': 64, **kwargs}).eval()
    ours.init_weights()
    return ours


@torch.no_grad()
def assert_same_features(ours: CoAtNet, theirs: MaxxVit, image: Tensor) -> None:
    for a, b in zip(ours(image), timm_maps(theirs, image), strict=True):
        assert b.std() > 0.1
        torch.testing.assert_close(a / b.std(), b / b.std(), rtol=0, atol=1e-5)


def test_no_arch_is_untested() -> None:
    assert PARAMS.keys() == PUBLISHED.keys() == ARCHS.keys()


@functools.cache
def full_size(name: str) -> tuple[CoAtNet, MaxxVit | None]:
    with torch.device('meta'):
        ours = CoAtNet(name, out_norm=False)
        if name not in REFERENCED:
            return ours, None
        return ours, timm.create_model(f'coatnet_{name}_224', transformer_dim_head=ARCHS[name].dim_head)


@pytest.mark.parametrize('name', ARCHS)
def test_golden_counts(name: str) -> None:
    count = sum(p.numel() for p in full_size(name)[0].parameters())
    assert count == PARAMS[name]
    width = ARCHS[name].dims[-1]
    # a norm, 1000 classes, and for the paper's shapes timm's hidden layer, which comes closest to the published counts
    classifier = 2 * width + (len(name) == 1) * width * (width + 1) + 1000 * (width + 1)
    assert (count + classifier) / 1e6 == pytest.approx(PUBLISHED[name], rel=7e-3)


@pytest.mark.parametrize('name', REFERENCED)
def test_full_size_keys_and_shapes_map_both_ways(name: str) -> None:
    ours, theirs = full_size(name)
    own, reference = ours.state_dict(), theirs.state_dict()
    kept = {k: v for k, v in reference.items() if not k.startswith(CoAtNet.ignored_keys)}
    converted = ours._convert(kept)
    assert {k: v.shape for k, v in converted.items()} == {k: v.shape for k, v in own.items()}
    back = checkpoint_filter_fn(own, theirs)
    assert {k: v.shape for k, v in back.items()} == {k: v.shape for k, v in kept.items()}


@pytest.mark.parametrize('name', ['0', '0_rw'])
def test_full_size_has_timms_features_at_224(tmp_path: Path, name: str) -> None:
    theirs = randomise(timm.create_model(f'coatnet_{name}_224')).eval()
    assert_same_features(loaded(theirs, name, tmp_path, pretrain_img_size=224), theirs, torch.randn(1, 3, 224, 224))


@pytest.mark.parametrize('name', REFERENCED)
def test_every_kind_has_timms_features(tmp_path: Path, name: str) -> None:
    theirs = timm_twin(name)
    assert_same_features(loaded(theirs, fields(name, **SMALL), tmp_path), theirs, torch.randn(2, 3, 64, 64))


@pytest.mark.parametrize('name', ['0', '0_rw', 'rmlp_1_rw'])
@pytest.mark.parametrize('stages', ['CCCC', 'CCCT', 'CTTT'])
def test_every_layout_has_timms_features(tmp_path: Path, name: str, stages: str) -> None:
    theirs = timm_twin(name, block_type=tuple(stages))
    ours = loaded(theirs, fields(name, **SMALL), tmp_path, stages=stages)
    assert_same_features(ours, theirs, torch.randn(2, 3, 64, 64))


def test_lead_is_timms_stage_of_both_blocks(tmp_path: Path) -> None:
    theirs = timm_twin('0', block_type=('C', 'C', ('C', 'T'), 'T'))
    ours = loaded(theirs, fields('0', lead=(1, 64), **SMALL), tmp_path)
    assert_same_features(ours, theirs, torch.randn(2, 3, 64, 64))


def test_lead_has_its_own_width() -> None:
    for stages in coatnet.LAYOUTS:
        model = CoAtNet(fields('6', **{**SMALL, 'dims': (32, 64, 128, 128)}, dim_head=32, lead=(1, 64)), stages=stages)
        first, second = model.stages[2]['blocks']
        assert first.conv3_1x1.out_channels == 64 and second.shortcut.expand.out_channels == 128
        assert [m.shape[1:] for m in model.eval()(torch.randn(1, 3, 64, 96))][2] == (128, 4, 6)


@pytest.mark.parametrize('size', [(96, 96), (32, 64), (160, 64)])
@pytest.mark.parametrize('name', [name for name in REFERENCED if 'rw' in name])
def test_timms_shapes_have_its_features_at_every_size(tmp_path: Path, name: str, size: tuple[int, int]) -> None:
    """timm runs at the size it was built for, and resizes tables when it loads weights of another."""
    trained = timm_twin(name)
    theirs = timm_twin(name, size)
    theirs.load_state_dict(checkpoint_filter_fn(trained.state_dict(), theirs))
    assert_same_features(loaded(trained, fields(name, **SMALL), tmp_path), theirs, torch.randn(2, 3, *size))


def test_weights_of_224_at_other_sizes_have_timms_features(tmp_path: Path) -> None:
    """The grids of 14 and 7 tokens that published weights have; 768 pixels are beyond the bounds of BEiT's spacing."""
    trained = timm_twin('0_rw', 224)
    ours = loaded(trained, fields('0_rw', **SMALL), tmp_path, pretrain_img_size=224)
    for size in ((256, 256), (320, 320), (288, 352), (224, 256), (768, 64)):
        theirs = timm_twin('0_rw', size)
        theirs.load_state_dict(checkpoint_filter_fn(trained.state_dict(), theirs))
        assert_same_features(ours, theirs, torch.randn(1, 3, *size))


def test_a_published_file_at_another_size(tmp_path: Path) -> None:
    """Through timm's own way of loading a file, at full size."""
    trained = randomise(timm.create_model('coatnet_nano_rw_224'))
    torch.save(trained.state_dict(), tmp_path / 'file.pth')
    file = dict(file=str(tmp_path / 'file.pth'))
    theirs = timm.create_model('coatnet_nano_rw_224', pretrained=True, pretrained_cfg_overlay=file, img_size=(256, 320))
    ours = loaded(trained, 'nano_rw', tmp_path, pretrain_img_size=224)
    assert_same_features(ours, theirs.eval(), torch.randn(1, 3, 256, 320))


@pytest.mark.parametrize('size', [(96, 96), (32, 64)])
def test_the_papers_shapes_resize_bilinearly(tmp_path: Path, size: tuple[int, int]) -> None:
    """timm once it is given our tables, which `test_rel_attention` holds to the paper's rule."""
    trained = timm_twin('0')
    ours = loaded(trained, fields('0', **SMALL), tmp_path)
    theirs = timm_twin('0', size)
    state_dict = dict(trained.state_dict())
    for key, table in state_dict.items():
        if key.endswith('relative_position_bias_table'):
            stride = coatnet.STRIDES[int(key.split('.')[1])]
            side = [2 * n // stride - 1 for n in (64, 64, *size)]
            square = table.T.unflatten(1, side[:2])[None]
            state_dict[key] = nn.functional.interpolate(square, size=side[2:], mode='bilinear')[0].flatten(1).T
    theirs.load_state_dict(state_dict)
    assert_same_features(ours, theirs, torch.randn(2, 3, *size))


def test_every_shape_says_how_its_biases_are_resized() -> None:
    assert {name: a.rel_pos_resize for name, a in ARCHS.items()} == {
        name: 'geometric' if 'rw' in name else 'bilinear' for name in ARCHS
    }


@pytest.mark.parametrize('name', ['0', '0_rw', 'bn_0_rw', '3_rw'])
def test_gradients_are_timms(name: str) -> None:
    theirs = timm_twin(name).train().double()
    ours = CoAtNet(fields(name, **SMALL), out_norm=False, pretrain_img_size=64).train().double()
    ours.load_pretrained(theirs.state_dict())
    image = torch.randn(2, 3, 64, 64, dtype=torch.double)
    for maps in (ours(image), timm_maps(theirs, image)):
        sum(m.square().mean() for m in maps).backward()
    gradients = dict(theirs.named_parameters())
    for key, p in ours.named_parameters():
        torch.testing.assert_close(p.grad, gradients[key].grad.view(p.shape), rtol=1e-7, atol=1e-10, msg=key)


def test_drop_path_rates_are_timms() -> None:
    cfg = dataclasses.replace(model_cfgs['coatnet_0'], embed_dim=SMALL['dims'], depths=SMALL['depths'])
    theirs = MaxxVit(cfg, img_size=64, drop_path_rate=0.3)
    ours = CoAtNet(fields('0', **SMALL), drop_path_rate=0.3, pretrain_img_size=64)
    expected = [
        getattr(getattr(block, 'drop_path', getattr(block, 'drop_path1', None)), 'drop_prob', 0.0)
        for stage in theirs.stages
        for block in stage.blocks
    ]
    assert [b.drop_path.rate for stage in ours.stages for b in stage['blocks']] == pytest.approx(expected)


# 0, 1, 2: table 9 of the paper, with 'Strided DConv'; as '1x1': tables 4 and 9. The others: timm's model cards.
GMACS = {'0': 4.6, '1': 8.8, '2': 16.6, '0 1x1': 4.2, '3 1x1': 34.7}
GMACS |= {'nano_rw': 2.41, '0_rw': 4.43, '1_rw': 8.04, 'rmlp_2_rw': 15.18}


def gmacs(arch: str | dict, size: int) -> float:
    with torch.device('meta'):
        model = CoAtNet(arch, out_norm=False).eval().requires_grad_(False)
        image = torch.empty(1, 3, size, size)
    with FlopCounterMode(display=False) as counter:
        model(image)
    return counter.get_total_flops() / 2e9


@pytest.mark.parametrize('name', GMACS)
def test_gmacs_at_224(name: str) -> None:
    row, _, mode = name.partition(' ')
    found = gmacs(fields(row, stride_mode=mode) if mode else row, 224)
    assert found == pytest.approx(GMACS[name], rel=0.03)  # the classifier's and the norms' are not counted


def test_gmacs_of_6_at_512_as_published() -> None:
    """Table 5 of the paper. With the 2048 channels that table 12 prints for the last stage there would be 1480."""
    assert gmacs('6', 512) == pytest.approx(1521, rel=0.01)


def test_pieces_in_the_whole_model(monkeypatch) -> None:
    """Under autocast, compiled without a graph break, nested in the recomputation of blocks, and all of it backward."""
    model = CoAtNet(fields('0_rw', **{**SMALL, 'depths': (1, 1, 1, 1)}), pretrain_img_size=64).eval()
    image = torch.randn(1, 3, 64, 96)

    def gradients(forward) -> list[Tensor]:
        model.zero_grad()
        sum(m.float().square().mean() for m in forward(image)).backward()
        return [p.grad.clone() for p in model.parameters()]

    same = functools.partial(torch.testing.assert_close, expected=gradients(model), rtol=1e-3, atol=1e-5)
    monkeypatch.setattr(rel_attention, 'MAX_BIAS_BYTES', 2048)  # two pieces or more in stage 3, a few rows each
    same(gradients(model))
    same(gradients(torch.compile(model, backend='aot_eager', fullgraph=True)))
    with torch.autocast('cpu', torch.bfloat16):
        assert all(g.isfinite().all() for g in gradients(model))
    model.with_cp = model.training = True  # but not its parts: no dropout, no statistics of the batch
    same(gradients(model))


def test_buffers_of_old_checkpoints_are_left_out() -> None:
    ours, theirs = CoAtNet(fields('0', **SMALL), pretrain_img_size=64), timm_twin('0')
    extra = {'stages.2.blocks.0.attn.rel_pos.relative_position_index': torch.zeros(16, 16)}
    ours.load_pretrained({**theirs.state_dict(), **extra})


def test_wrong_weights_and_arguments_are_named() -> None:
    ours = CoAtNet(fields('0', **SMALL), pretrain_img_size=128)
    with pytest.raises(ValueError, match='relative_position_bias_table .* set pretrain_img_size'):
        ours.load_pretrained(timm_twin('0').state_dict())
    with pytest.raises(ValueError, match='unknown: stages.0.blocks.0.se_early'):
        ours.load_pretrained(timm_twin('0_rw').state_dict())
    for match, stages, changes in (
        ('stages must be one of .*, got .TTTT', 'TTTT', {}),
        ('depths and dims have 4 entries', 'CCTT', dict(depths=(1, 2, 2))),
        ('pool_type must be one of .*, got .min', 'CCTT', dict(pool_type='min')),
        ('width 64 does not divide into heads of 48', 'CCTT', dict(dim_head=48)),
        ('lead counts in the depth', 'CCTT', dict(lead=(2, 64))),
    ):
        with pytest.raises(ValueError, match=match):
            CoAtNet(fields('0', **{**SMALL, **changes}), stages=stages)
