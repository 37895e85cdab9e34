"""Our heads against mmseg's with the same weights, in float64."""

import pytest
import torch
from mmengine.registry import MODELS, DefaultScope
from torch import Tensor, nn

import mmseg_volo.register_all  # noqa: F401
from mmseg_volo.zoo.cost import LiveMemory

# mmseg's advice on sizes, which neither head follows
pytestmark = pytest.mark.filterwarnings('ignore:When align_corners=True')

CHANNELS = [8, 12, 16, 20]
COMMON = dict(
    in_channels=CHANNELS, in_index=[0, 1, 2, 3], channels=10, num_classes=5, norm_cfg=dict(type='BN'), dropout_ratio=0.0
)
HEADS = {
    'LeanUPerHead': ('mmseg.UPerHead', dict(pool_scales=(1, 2, 3, 6))),
    'LeanSegformerHead': ('mmseg.SegformerHead', {}),
}
LESS = {'LeanUPerHead': 0.92, 'LeanSegformerHead': 0.6}  # of mmseg's peak
SIZES = {
    'pyramid': [(32, 40), (16, 20), (8, 10), (4, 5)],
    'odd': [(33, 21), (17, 11), (9, 6), (5, 3)],
    'one stride': [(8, 9)] * 4,
    'coarse first': [(8, 8), (16, 16), (8, 8), (4, 4)],
}


def build(name: str, more: dict) -> nn.Module:
    with DefaultScope.overwrite_default_scope('mmseg'):
        return MODELS.build({'type': name, **COMMON, **more}).double()


def pair(name: str, **changes: object) -> tuple[nn.Module, nn.Module]:
    """Ours and mmseg's, with the same random weights and statistics."""
    theirs_name, more = HEADS[name]
    torch.manual_seed(0)
    ours, theirs = build(name, {**more, **changes}), build(theirs_name, {**more, **changes})
    state = {k: torch.randn_like(v) if v.is_floating_point() else v for k, v in theirs.state_dict().items()}
    state = {k: v.abs() + 0.5 if k.endswith('running_var') else v for k, v in state.items()}
    for head in (ours, theirs):
        head.load_state_dict(state, strict=True)
    return ours, theirs


def maps_of(sizes: list[tuple[int, int]]) -> list[Tensor]:
    maps = [torch.randn(2, c, *size, dtype=torch.float64) for c, size in zip(CHANNELS, sizes, strict=True)]
    return [m.requires_grad_() for m in maps]


@pytest.mark.parametrize('training', [False, True])
@pytest.mark.parametrize('align_corners', [False, True])
@pytest.mark.parametrize('sizes', SIZES.values(), ids=SIZES)
@pytest.mark.parametrize('name', HEADS)
def test_results_and_gradients_are_those_of_mmseg(name, sizes, align_corners, training):
    heads = [head.train(training) for head in pair(name, align_corners=align_corners)]
    maps = maps_of(sizes)
    found = []
    for head in heads:
        logits = head(maps)
        grads = torch.autograd.grad(logits.square().mean(), [*maps, *head.parameters()])
        found.append([logits, *grads])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize('changes', [dict(norm_cfg=None), dict(act_cfg=dict(type='GELU'))], ids=str)
@pytest.mark.parametrize('name', HEADS)
def test_without_a_norm_and_with_another_activation(name, changes):
    ours, theirs = (head.eval() for head in pair(name, **changes))
    maps = maps_of(SIZES['odd'])
    torch.testing.assert_close(ours(maps), theirs(maps), rtol=1e-9, atol=1e-9)


def test_bfloat16_rounds_no_worse_than_mmseg():
    ours, theirs = (head.eval() for head in pair('LeanUPerHead', align_corners=False))
    maps = maps_of(SIZES['pyramid'])
    with torch.no_grad():
        exact = theirs(maps)
        gaps = []
        for head in (ours, theirs):
            with torch.autocast('cpu', torch.bfloat16):
                gaps.append((head.float()([m.float() for m in maps]).double() - exact).std().item())
    assert gaps[0] < 1.5 * gaps[1]


@pytest.mark.parametrize('training', [False, True])
@pytest.mark.parametrize('name', HEADS)
def test_less_memory_than_mmseg(name, training):
    peaks = []
    for head in pair(name, channels=64, align_corners=False):
        head.train(training).requires_grad_(training)
        maps = [m.detach() for m in maps_of([(64, 64), (32, 32), (16, 16), (8, 8)])]
        with LiveMemory(nn.ModuleList([head])) as memory:
            logits = head(maps)
            if training:
                logits.square().mean().backward()
        peaks.append(memory.peak)
    assert peaks[0] < LESS[name] * peaks[1]
