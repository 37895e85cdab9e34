"""Relative attention against the formula of the paper (CoAtNet, appendix A.1), and its memory."""

from __future__ import annotations

import pytest
import torch
from timm.layers import resize_rel_pos_bias_table
from torch import Tensor, nn

from mmseg_volo.models.backbones import rel_attention
from mmseg_volo.models.backbones.rel_attention import RelPosBias, RelPosMlp, relative_attention


def attention_inputs(height: int, width: int, dtype: torch.dtype, heads: int = 3) -> list[Tensor]:
    q, k, v = (torch.randn(2, heads, height, width, 8, dtype=dtype) for _ in range(3))
    table = torch.randn(heads, 2 * height - 1, 2 * width - 1, dtype=dtype)
    return [t.requires_grad_() for t in (q, k, v, table)]


def reference_attention(q: Tensor, k: Tensor, v: Tensor, table: Tensor) -> Tensor:
    """Appendix A.1 of the paper, word for word."""
    height, width = q.shape[2:4]
    i, j = (t.flatten() for t in torch.meshgrid(torch.arange(height), torch.arange(width), indexing='ij'))
    bias = table[:, i[:, None] - i + height - 1, j[:, None] - j + width - 1]
    q, k, v = (t.flatten(2, 3) for t in (q, k, v))
    weights = (q @ k.mT / q.shape[-1] ** 0.5 + bias).softmax(-1)
    return (weights @ v).unflatten(2, (height, width))


@pytest.mark.parametrize('size', [(1, 1), (5, 5), (4, 7), (6, 2)])
@pytest.mark.parametrize('queries', [1, 3, 9, 1000])  # part of a row, of several rows, and all in one piece
def test_relative_attention_in_pieces(monkeypatch, size: tuple[int, int], queries: int) -> None:
    inputs = attention_inputs(*size, torch.double)
    monkeypatch.setattr(rel_attention, 'MAX_BIAS_BYTES', queries * 3 * size[0] * size[1] * 8)
    ours, expected = relative_attention(*inputs), reference_attention(*inputs)
    torch.testing.assert_close(ours, expected)
    weights = torch.randn_like(ours)
    for a, b in zip(
        torch.autograd.grad(ours, inputs, weights), torch.autograd.grad(expected, inputs, weights), strict=True
    ):
        torch.testing.assert_close(a, b)


def peak_bytes(inputs: list[Tensor], train: bool) -> int:
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        with torch.set_grad_enabled(train):
            out = relative_attention(*inputs)
            if train:
                out.square().sum().backward()
    held = peak = 0
    for event in profiler.profiler.kineto_results.events():
        if event.name() == '[memory]':
            held += event.nbytes()
            peak = max(peak, held)
    return peak


@pytest.mark.parametrize('train', [False, True])
def test_memory_is_bounded(monkeypatch, train: bool) -> None:
    inputs = attention_inputs(32, 32, torch.float, heads=12)
    whole = 12 * 32**4 * 4  # bytes of one image's biases
    bound = whole // 16
    monkeypatch.setattr(rel_attention, 'MAX_BIAS_BYTES', bound)
    small = sum(t.nbytes for t in inputs)
    # training on a CPU holds the softmax of a piece for the two images, and its gradients
    peak = peak_bytes(inputs, train)
    assert bound <= peak < (bound * 9 if train else bound * 1.1) + 4 * small
    assert peak < whole


def test_table_is_resized_bilinearly_about_its_centre() -> None:
    table = RelPosBias(4, 1)
    dy = torch.arange(-3.0, 4).view(7, 1).expand(7, 7)
    table.relative_position_bias_table.data = dy.reshape(-1, 1)
    (ours,) = table(10, 6)
    assert ours.shape == (19, 11)
    assert torch.equal(ours[9], torch.zeros(11))
    expected = (torch.arange(-9.0, 10) * 7 / 19).clamp(-3, 3)  # distances in units of the trained map
    torch.testing.assert_close(ours, expected.view(19, 1).expand(19, 11))


@pytest.mark.parametrize('size', [(7, 7), (3, 5), (7, 12), (24, 9), (1, 40)])
@pytest.mark.parametrize('grid', [1, 2, 7])
def test_table_is_resized_geometrically_as_by_timm(grid: int, size: tuple[int, int]) -> None:
    table = RelPosBias(grid, 2, 'geometric')
    nn.init.normal_(table.relative_position_bias_table)
    height, width = (2 * n - 1 for n in size)
    expected = resize_rel_pos_bias_table(table.relative_position_bias_table.detach(), size, (height * width, 2))
    ours = table(*size)
    torch.testing.assert_close(ours, expected.T.unflatten(1, (height, width)), rtol=0, atol=1e-5)
    ours.square().sum().backward()
    assert table.relative_position_bias_table.grad.count_nonzero() > 0
    with torch.autocast('cpu', torch.bfloat16), torch.no_grad():
        assert torch.equal(table(*size), ours)


def test_neighbours_keep_their_biases() -> None:
    table = RelPosBias(7, 1, 'geometric')
    nn.init.normal_(table.relative_position_bias_table)
    local = table(7, 7)[0, 5:8, 5:8]
    torch.testing.assert_close(table(16, 16)[0, 14:17, 14:17], local)
    table.resize = 'bilinear'
    assert (table(16, 16)[0, 14:17, 14:17] - local).abs().max() > 0.1


def test_compiled_at_several_sizes() -> None:
    table = RelPosBias(7, 2, 'geometric')
    compiled = torch.compile(table, backend='aot_eager', fullgraph=True)
    for size in ((9, 9), (5, 16)):
        ours, expected = compiled(*size), table(*size)
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-6)
        gradients = [torch.autograd.grad(t.square().sum(), table.parameters()) for t in (ours, expected)]
        torch.testing.assert_close(*gradients)


def test_mlp_extrapolates_by_the_offset_in_tokens() -> None:
    mlp = RelPosMlp(8, 2).eval()
    torch.testing.assert_close(mlp(9, 5)[:, 5:12, 2:7], mlp(4, 3))
