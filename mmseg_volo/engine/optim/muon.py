"""Optimise by Muon and AdamW on any device: PyTorch's and timm's iterate in bfloat16 only, slow on most CPUs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, overload

import torch
from mmengine.registry import OPTIMIZERS
from torch import Tensor, nn
from torch.optim.adamw import adamw

# of the quintic iteration: steep at zero, so that small singular values grow fast (KellerJordan/Muon)
COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def orthogonalise(matrix: Tensor, steps: int) -> Tensor:
    """Push singular values towards 1 by Newton-Schulz iteration: to about 0.7 to 1.2 after five steps.

    Args:
        matrix: (m, n), processed in its own dtype.
        steps: more bring them closer to 1.

    Returns:
        (m, n).
    """
    a, b, c = COEFFICIENTS
    wide = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    wide = wide / (wide.norm() + 1e-7)
    for _ in range(steps):
        gram = wide @ wide.T
        wide = a * wide + (b * gram + c * gram @ gram) @ wide
    result: Tensor = wide.T if matrix.shape[0] > matrix.shape[1] else wide
    return result


@OPTIMIZERS.register_module()
class MuonAdamW(torch.optim.Optimizer):
    """Apply Muon (kellerjordan.github.io/posts/muon) to weight matrices and convolutions, AdamW to all else.

    A convolution counts as the matrix (out, in * k * k). Vectors, position tables and depthwise convolutions, whose
    first or second axis is 1, go to AdamW. An update has the spectral norm lr * sqrt(max(1, out / in)).

    Args:
        params: parameters or groups.
        lr: Muon's learning rate.
        adamw_lr: AdamW's; a schedule and `lr_mult` scale both alike.
        weight_decay: decoupled, for both.
        momentum: Muon's, in Nesterov's form.
        ns_steps: iterations of the orthogonalisation.
        betas, eps: AdamW's.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter] | Iterable[dict[str, Any]],
        lr: float = 0.02,
        adamw_lr: float = 1e-3,
        weight_decay: float = 0.01,
        momentum: float = 0.95,
        ns_steps: int = 5,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ):
        if lr <= 0 or adamw_lr <= 0:
            raise ValueError(f'MuonAdamW: lr and adamw_lr must be positive, got {lr} and {adamw_lr}')
        defaults = dict(lr=lr, adamw_ratio=adamw_lr / lr, weight_decay=weight_decay, momentum=momentum)
        super().__init__(params, {**defaults, 'ns_steps': ns_steps, 'betas': tuple(betas), 'eps': eps})

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Update the parameters; `closure` recomputes the loss, as in torch."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            others = []
            for p in (p for p in group['params'] if p.grad is not None):
                if p.ndim > 1 and min(p.shape[:2]) > 1:
                    self._muon(p, group)
                else:
                    others.append(p)
            if others:
                self._adamw(others, group)
        return loss

    def _muon(self, p: Tensor, group: dict[str, Any]) -> None:
        assert p.grad is not None
        state = self.state[p]
        if not state:
            state['momentum_buffer'] = torch.zeros_like(p)
        average = state['momentum_buffer'].lerp_(p.grad, 1 - group['momentum'])
        update = orthogonalise(p.grad.lerp(average, group['momentum']).flatten(1), group['ns_steps'])
        scale = max(1, update.shape[0] / update.shape[1]) ** 0.5
        p.mul_(1 - group['lr'] * group['weight_decay'])
        p.add_(update.reshape(p.shape), alpha=-group['lr'] * scale)

    def _adamw(self, params: list[Tensor], group: dict[str, Any]) -> None:
        for p in params:
            if not self.state[p]:
                self.state[p].update(step=torch.zeros(()), exp_avg=torch.zeros_like(p), exp_avg_sq=torch.zeros_like(p))
        states = [self.state[p] for p in params]
        adamw(
            params,
            [p.grad for p in params if p.grad is not None],
            [s['exp_avg'] for s in states],
            [s['exp_avg_sq'] for s in states],
            [],
            [s['step'] for s in states],
            amsgrad=False,
            beta1=group['betas'][0],
            beta2=group['betas'][1],
            lr=group['lr'] * group['adamw_ratio'],
            weight_decay=group['weight_decay'],
            eps=group['eps'],
            maximize=False,
        )
