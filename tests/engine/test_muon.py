"""MuonAdamW against the definition of what it approximates, against torch's AdamW, and over a resume."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from mmseg_volo.engine.optim.muon import MuonAdamW, orthogonalise


@pytest.mark.parametrize('shape', [(48, 48), (32, 96), (96, 32), (16, 576)])
def test_singular_values_go_to_one_and_vectors_stay(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, dtype=torch.float64)
    u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    out = orthogonalise(matrix, 5)
    gains = torch.linalg.diagonal(u.T @ out @ vh.T)
    torch.testing.assert_close(u @ gains.diag() @ vh, out)  # the same singular vectors
    kept = s > 0.05 * s.max()  # the smallest ones of a square matrix need more steps
    assert kept.sum() > 0.9 * len(s) and gains[kept].min() > 0.6 and gains.max() < 1.3


def test_a_step_is_the_orthogonalised_momentum() -> None:
    conv = nn.Conv2d(3, 32, 3, bias=False).double()
    before, grads = conv.weight.detach().clone(), torch.randn(2, *conv.weight.shape, dtype=torch.float64)
    optimiser = MuonAdamW(conv.parameters(), lr=0.1, weight_decay=0.5, momentum=0.9, ns_steps=3)
    average = 0
    for grad in grads:
        conv.weight.grad = grad
        optimiser.step()
        average = 0.9 * average + 0.1 * grad
        update = orthogonalise((0.1 * grad + 0.9 * average).flatten(1), 3).view_as(grad)
        before = before * (1 - 0.1 * 0.5) - 0.1 * (32 / 27) ** 0.5 * update
    torch.testing.assert_close(conv.weight.detach(), before)


@pytest.mark.parametrize('shape', [(7,), (1, 4, 4, 8), (8, 1, 3, 3), ()])
def test_the_rest_is_torchs_adamw(shape: tuple[int, ...]) -> None:
    ours, theirs = (nn.Parameter(torch.ones(shape)) for _ in range(2))
    optimisers = (
        MuonAdamW([ours], lr=0.02, adamw_lr=0.003, weight_decay=0.1),
        torch.optim.AdamW([theirs], lr=0.003, weight_decay=0.1),
    )
    for _ in range(5):
        ours.grad = theirs.grad = torch.randn(shape)
        for optimiser in optimisers:
            optimiser.step()
    torch.testing.assert_close(ours, theirs)


def test_a_resumed_run_goes_on_exactly() -> None:
    data = torch.randn(16, 8)
    model = nn.Sequential(nn.Linear(8, 12), nn.GELU(), nn.Linear(12, 8))
    optimiser = MuonAdamW(model.parameters())

    def train(model: nn.Module, optimiser: MuonAdamW) -> float:
        for _ in range(20):
            loss = (model(data) - data).square().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        return loss.item()

    first = train(model, optimiser)
    again = copy.deepcopy(model)
    resumed = MuonAdamW(again.parameters())
    resumed.load_state_dict(copy.deepcopy(optimiser.state_dict()))
    last = train(model, optimiser)
    assert last < first
    assert train(again, resumed) == last


def test_a_rate_of_zero_is_refused() -> None:
    with pytest.raises(ValueError, match='lr and adamw_lr must be positive, got 0 and 0.001'):
        MuonAdamW([nn.Parameter(torch.ones(2, 2))], lr=0)
