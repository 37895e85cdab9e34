from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from mmseg_volo.models.losses import WeightedCrossEntropy


def test_is_torchs_weighted_mean() -> None:
    logits, label = torch.randn(2, 3, 8, 8, requires_grad=True), torch.randint(0, 3, (2, 8, 8))
    label[:, :2] = 255
    loss = WeightedCrossEntropy(class_weight=[0.2, 1.0, 3.0], avg_non_ignore=True, loss_weight=0.5)
    expected = 0.5 * F.cross_entropy(logits, label, torch.tensor([0.2, 1.0, 3.0]), ignore_index=255)
    torch.testing.assert_close(loss(logits, label), expected)


def test_all_ignored_is_zero_and_finite() -> None:
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    loss = WeightedCrossEntropy(class_weight=[1.0, 1.0, 1.0], avg_non_ignore=True)
    value = loss(logits, torch.full((1, 4, 4), 255))
    value.backward()
    assert value == 0 and not logits.grad.any()


def test_mmsegs_own_still_fails_at_this() -> None:
    """When this no longer fails, `WeightedCrossEntropy` can go."""
    from mmseg.models.losses import CrossEntropyLoss

    logits, label = torch.randn(1, 2, 4, 4), torch.randint(0, 2, (1, 4, 4))
    label[0, 0] = 255
    with pytest.raises((IndexError, RuntimeError)):
        CrossEntropyLoss(class_weight=[1.0, 2.0], avg_non_ignore=True)(logits, label, ignore_index=255)
