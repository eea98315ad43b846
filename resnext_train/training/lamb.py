"""LAMB: Adam, whose update of each matrix or kernel is as long as the weights that it changes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class Lamb(Optimizer):
    """LAMB (arXiv 1904.00962) as in timm.optim.Lamb with `max_grad_norm=None`.

    Weight decay is part of the update, and groups without decay have no trust ratio. All that depends on the number of
    steps is computed on the device, so that a step can be taken back there. The state is that of torch.optim.AdamW;
    `optimizer.build_optimizer` makes it before the first step.
    """

    def __init__(self, groups: list[dict[str, Any]], lr: float, betas: tuple[float, float], eps: float) -> None:
        super().__init__(groups, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update all parameters that have a gradient."""
        for group in self.param_groups:
            # As in timm a group counts its steps: all its counters are equal.
            steps = [self.state[p]["step"] for p in group["params"]]
            trained = [p for p in group["params"] if p.grad is not None]
            if steps:
                torch._foreach_add_(steps, 1)
            if trained:
                _add_update(trained, self._update(trained, steps[0], group), group)

    def _update(self, trained: list[Tensor], step: Tensor, group: dict[str, Any]) -> list[Tensor]:
        """Return Adam's update of each parameter, whose running means take up the gradients first."""
        (beta1, beta2), dtype = group["betas"], trained[0].dtype
        gradients = [p.grad for p in trained if p.grad is not None]
        means, squares = ([self.state[p][name] for p in trained] for name in ("exp_avg", "exp_avg_sq"))
        torch._foreach_lerp_(means, gradients, 1 - beta1)
        torch._foreach_mul_(squares, beta2)
        torch._foreach_addcmul_(squares, gradients, gradients, 1 - beta2)
        # mean / correction1 over sqrt(square / correction2) + eps, with both corrections in the divisor.
        count = step.double()
        correction1, correction2 = 1 - beta1**count, 1 - beta2**count
        divisors = torch._foreach_sqrt(squares)
        torch._foreach_mul_(divisors, (correction1 / correction2.sqrt()).to(dtype))
        torch._foreach_add_(divisors, (correction1 * group["eps"]).to(dtype))
        return list(torch._foreach_div(means, divisors))


def _add_update(trained: list[Tensor], updates: list[Tensor], group: dict[str, Any]) -> None:
    """Add -lr times `updates` with weight decay, each scaled to the norm of its parameter where the group decays."""
    if not group["weight_decay"]:
        torch._foreach_add_(trained, updates, alpha=-group["lr"])
        return
    torch._foreach_add_(updates, trained, alpha=group["weight_decay"])
    weights, lengths = torch.stack(torch._foreach_norm(trained)), torch.stack(torch._foreach_norm(updates))
    ratios = torch.where((weights > 0) & (lengths > 0), weights / lengths, 1.0)
    torch._foreach_mul_(updates, list((ratios * -group["lr"]).unbind()))
    torch._foreach_add_(trained, updates)
