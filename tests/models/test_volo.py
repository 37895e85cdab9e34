"""VOLO against timm's, with the same weights through our own loader, and against the paper's counts."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
import torch.nn.functional as F
from timm.models.volo import VOLO as TimmVOLO
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from mmseg_volo.models.backbones import volo
from mmseg_volo.models.backbones.volo import VOLO

# parameters of the four stages without out_norms: timm's count without cls_token, post_network, norm, head, aux_head
PARAMS = {'d1': 22_904_856, 'd2': 52_398_704, 'd3': 80_045_440, 'd4': 179_610_912, 'd5': 279_744_144}
# classifier included, in millions (sail-sg/volo README, table of models)
PUBLISHED = {'d1': 26.6, 'd2': 58.7, 'd3': 86.3, 'd4': 193, 'd5': 296}
GMACS = {'d1': 6.94, 'd2': 14.34, 'd3': 20.78, 'd4': 44.34, 'd5': 72.40}  # at 224, classifier included (timm)
TINY = dict(depths=[2, 1, 2, 1], dims=[32, 64, 64, 64], num_heads=[2, 4, 4, 4], stem_dim=16)


def timm_twin(arch: dict, img_size: int | tuple[int, int] = 64) -> TimmVOLO:
    names = dict(layers=arch['depths'], embed_dims=arch['dims'], num_heads=arch['num_heads'])
    return TimmVOLO(**names, stem_hidden_dim=arch['stem_dim'], img_size=img_size, num_classes=10).eval()


def timm_maps(model: TimmVOLO, image: Tensor) -> list[Tensor]:
    """The map behind each stage, by timm's own modules."""
    x = model.patch_embed(image).permute(0, 2, 3, 1)
    maps = []
    for i, part in enumerate(model.network):
        x = part(x + model.pos_embed if i == 2 else x)
        if i != 1:
            maps.append(x.permute(0, 3, 1, 2))
    return maps


def assert_same(ours: tuple[Tensor, ...], theirs: list[Tensor]) -> None:
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5)


def test_no_arch_is_untested() -> None:
    assert PARAMS.keys() == PUBLISHED.keys() == volo.ARCHS.keys()


@pytest.mark.parametrize('arch', volo.ARCHS)
def test_golden_counts(arch: str) -> None:
    with torch.device('meta'):
        ours = VOLO(arch, out_norm=False)
        theirs = timm.create_model(f'volo_{arch}_224')
    count = sum(p.numel() for p in ours.parameters())
    assert count == PARAMS[arch]
    classifier = sum(p.numel() for k, p in theirs.named_parameters() if k.startswith(VOLO.ignored_keys))
    assert (count + classifier) / 1e6 == pytest.approx(PUBLISHED[arch], rel=3e-3)


@pytest.mark.parametrize('arch', volo.ARCHS)
def test_gmacs_are_the_published_ones(arch: str) -> None:
    with torch.device('meta'):
        ours, theirs, image = VOLO(arch), timm.create_model(f'volo_{arch}_224'), torch.empty(1, 3, 224, 224)
    with FlopCounterMode(display=False) as counter:
        ours.eval()(image)
    with FlopCounterMode(display=False) as classifier:  # on the tokens of the last stage, class token first
        tokens = theirs.eval().forward_cls(torch.empty(1, 196, ours.out_channels[-1], device='meta'))
        theirs.aux_head(tokens[:, 1:]), theirs.head(tokens[:, 0])
    assert (counter.get_total_flops() + classifier.get_total_flops()) / 2e9 == pytest.approx(GMACS[arch], rel=0.03)


@pytest.mark.parametrize('arch', volo.ARCHS)
def test_full_size_keys_and_shapes_are_timms(arch: str) -> None:
    with torch.device('meta'):
        ours, theirs = VOLO(arch, out_norm=False), timm.create_model(f'volo_{arch}_224')
    kept = {k: v.shape for k, v in theirs.state_dict().items() if not k.startswith(VOLO.ignored_keys)}
    assert {k: v.shape for k, v in ours.state_dict().items()} == kept


def test_d1_has_timms_features_at_224(tmp_path: Path) -> None:
    theirs = timm.create_model('volo_d1_224').eval()
    torch.save(theirs.state_dict(), tmp_path / 'timm.pth')
    ours = VOLO('d1', out_norm=False, init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'timm.pth'))).eval()
    ours.init_weights()
    image = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        maps = ours(image)
        assert_same(maps, timm_maps(theirs, image))
        # the map that timm itself hands on to its classifier
        (last,) = theirs.forward_intermediates(image, indices=[3], norm=False, intermediates_only=True)
        torch.testing.assert_close(maps[3], last, rtol=0, atol=1e-5)


@pytest.mark.parametrize('size', [(64, 64), (96, 64), (128, 176), (224, 96)])
def test_same_features_as_timm_made_for_that_size(tmp_path: Path, size: tuple[int, int]) -> None:
    """timm runs at the size it was built for: given a grid resized as in sail-sg/volo (`resize_pos_embed_4d` in
    utils/utils.py) it must agree at any multiple of 16.
    """
    trained = timm_twin(TINY)
    torch.save({'state_dict': trained.state_dict()}, tmp_path / 'timm.pth')
    init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'timm.pth'))
    ours = VOLO(TINY, out_norm=False, pretrain_img_size=64, init_cfg=init_cfg).eval()
    ours.init_weights()
    theirs = timm_twin(TINY, size)
    grid = trained.pos_embed.detach().permute(0, 3, 1, 2)
    if grid.shape[2:] != (size[0] // 16, size[1] // 16):
        grid = F.interpolate(grid, (size[0] // 16, size[1] // 16), mode='bicubic')
    theirs.load_state_dict({**trained.state_dict(), 'pos_embed': grid.permute(0, 2, 3, 1)})
    image = torch.randn(2, 3, *size)
    with torch.no_grad():
        assert_same(ours(image), timm_maps(theirs, image))


@pytest.mark.parametrize('size', [(72, 88), (37, 141)])
def test_padding_is_zeros_on_the_far_sides(size: tuple[int, int]) -> None:
    """Stem and outlookers, the part of timm that runs at any size, on the image that was padded by hand."""
    theirs = timm_twin(TINY)
    ours = VOLO(TINY, out_norm=False, out_indices=(0,), pretrain_img_size=64).eval()
    ours.load_pretrained(theirs.state_dict())
    image = torch.randn(1, 3, *size)
    padded = F.pad(image, (0, -size[1] % 16, 0, -size[0] % 16))
    with torch.no_grad():
        (ours_map,) = ours(image)
        whole = theirs.network[0](theirs.patch_embed(padded).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    torch.testing.assert_close(ours_map, whole[..., : -(-size[0] // 8), : -(-size[1] // 8)], rtol=0, atol=1e-5)


def test_gradients_are_timms() -> None:
    theirs = timm_twin(TINY).train()
    ours = VOLO(TINY, out_norm=False, pretrain_img_size=64).train()
    ours.load_pretrained(theirs.state_dict())
    image = torch.randn(2, 3, 64, 64)
    for maps in (ours(image), timm_maps(theirs, image)):
        sum(m.square().mean() for m in maps).backward()
    gradients = dict(theirs.named_parameters())
    for name, p in ours.named_parameters():
        torch.testing.assert_close(p.grad, gradients[name].grad, rtol=1e-4, atol=1e-6, msg=name)


def test_drop_path_rates_are_timms() -> None:
    theirs = TimmVOLO([2, 1, 2, 1], 64, embed_dims=TINY['dims'], num_heads=TINY['num_heads'], drop_path_rate=0.3)
    ours = VOLO(TINY, drop_path_rate=0.3, pretrain_img_size=64)
    stages = [0, 2, 3, 4]
    expected = [getattr(b.drop_path1, 'drop_prob', 0.0) for i in stages for b in theirs.network[i]]
    assert [b.drop_path.rate for i in stages for b in ours.network[i]] == pytest.approx(expected)


def test_a_grid_of_another_size_says_what_to_do() -> None:
    with pytest.raises(ValueError, match='pos_embed .* set pretrain_img_size'):
        VOLO(TINY, pretrain_img_size=128).load_pretrained(timm_twin(TINY).state_dict())
