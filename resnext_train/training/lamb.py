"""LAMB: Adam, whose update of each matrix or kernel is as long as the weights that it changes."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer

from resnext_train.training.flat_tensors import flattened, views_like


class Lamb(Optimizer):
    """LAMB (arXiv 1904.00962) as in timm.optim.Lamb with `max_grad_norm=None`.

    Weight decay is part of the update, and groups without decay have no trust ratio. The state is that of
    torch.optim.AdamW; `optimizer.build_optimizer` makes it before the first step.

    Where the attribute `found_inf`, a scalar tensor, is 1, a step changes no bit, as with torch's fused optimizers.
    Taking it back would cost several launches for each tensor.
    """

    found_inf: Tensor | None = None

    def __init__(self, groups: list[dict[str, Any]], lr: float, betas: tuple[float, float], eps: float) -> None:
        super().__init__(groups, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update all parameters that have a gradient."""
        counters = [state["step"] for state in self.state.values()]  # which are all equal
        taken = torch.ones_like(counters[0]) if self.found_inf is None else 1 - self.found_inf
        torch._foreach_add_(counters, taken, alpha=1)  # without alpha, the host would wait for the number
        factors = _Factors.of(counters[0].double(), taken.double(), **self.defaults)
        for group in self.param_groups:
            if trained := [p for p in group["params"] if p.grad is not None]:
                updates = self._updates(trained, factors.to(trained[0].dtype))
                torch._foreach_add_(trained, _where(taken, _scaled(updates, trained, group)))

    def _updates(self, trained: list[Tensor], factors: _Factors) -> list[Tensor]:
        """Return Adam's update of each parameter, whose running means take up the gradients first."""
        gradients = _where(factors.taken, [p.grad for p in trained if p.grad is not None])
        means, squares = ([self.state[p][name] for p in trained] for name in ("exp_avg", "exp_avg_sq"))
        beta1, beta2 = self.defaults["betas"]
        torch._foreach_mul_(means, factors.keep_mean)
        torch._foreach_add_(means, gradients, alpha=1 - beta1)
        torch._foreach_mul_(squares, factors.keep_square)
        torch._foreach_addcmul_(squares, gradients, gradients, 1 - beta2)
        divisors = torch._foreach_sqrt(squares)
        torch._foreach_mul_(divisors, factors.root)
        torch._foreach_add_(divisors, factors.epsilon, alpha=1)
        return list(torch._foreach_div(means, divisors))


class _Factors(NamedTuple):
    """Scalar tensors of a step."""

    taken: Tensor
    """1, or 0 where the step changes nothing."""
    keep_mean: Tensor
    keep_square: Tensor
    """What remains of the running means: beta, or 1."""
    root: Tensor
    epsilon: Tensor
    """mean / correction1 over sqrt(square / correction2) + eps is mean / (root · sqrt(square) + epsilon)."""

    @classmethod
    def of(cls, steps: Tensor, taken: Tensor, betas: tuple[float, float], eps: float, **_: object) -> _Factors:
        keep1, keep2 = (1 - (1 - beta) * taken for beta in betas)
        # Of 0 steps, where the first one is not taken, these would divide by 0.
        correction1, correction2 = (1 - beta ** steps.clamp(min=1) for beta in betas)
        return cls(taken, keep1, keep2, correction1 / correction2.sqrt(), correction1 * eps)

    def to(self, dtype: torch.dtype) -> _Factors:
        return _Factors(*torch.stack(self).to(dtype).unbind())


def _scaled(updates: list[Tensor], trained: list[Tensor], group: dict[str, Any]) -> list[Tensor]:
    """Return -lr times `updates` with weight decay, each scaled to the norm of its parameter where the group decays."""
    if not group["weight_decay"]:
        torch._foreach_mul_(updates, -group["lr"])
        return updates
    torch._foreach_add_(updates, trained, alpha=group["weight_decay"])
    weights, lengths = torch.stack(torch._foreach_norm(trained)), torch.stack(torch._foreach_norm(updates))
    ratios = torch.where((weights > 0) & (lengths > 0), weights / lengths, 1.0)
    torch._foreach_mul_(updates, list((ratios * -group["lr"]).unbind()))
    return updates


def _where(taken: Tensor, tensors: list[Tensor]) -> list[Tensor]:
    """Return `tensors` where `taken` is 1, else -0.0: added to any number, it changes no bit of it."""
    flat = flattened(tensors)
    return views_like(tensors, torch.where(taken > 0, flat, -0.0))
