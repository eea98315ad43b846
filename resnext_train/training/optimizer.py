"""The optimizer."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer, RMSprop

from resnext_train.config import OptimizerSection, RmspropSection, SgdSection


def build_optimizer(section: OptimizerSection, model: nn.Module) -> Optimizer:
    """Build the optimizer. Without `decay_1d`, vectors (BatchNorm, biases) are in a parameter group without decay."""
    groups = [
        {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": section.weight_decay},
        {
            "params": [p for p in model.parameters() if p.ndim <= 1],
            "weight_decay": section.weight_decay if section.decay_1d else 0.0,
        },
    ]
    optimizer = _rmsprop(section, groups) if isinstance(section, RmspropSection) else _sgd(section, groups)
    # Torch makes the state in the first step, as zeros, but not correctly where that step is skipped: make it here.
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if group["momentum"]:
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
            if isinstance(optimizer, RMSprop):
                optimizer.state[parameter]["square_avg"] = torch.zeros_like(parameter)
                optimizer.state[parameter]["step"] = torch.zeros(())
    return optimizer


def step_where(all_finite: Tensor, optimizer: Optimizer) -> None:
    """Take the step where `all_finite` (bool, on the device) is true, else leave weights and momentum as they are.

    The host does not wait for the device.
    """
    if isinstance(optimizer, SGD):  # the fused update skips by itself on this flag, as for loss scaling
        optimizer.found_inf = (~all_finite).float()  # type: ignore[attr-defined]
        optimizer.step()
        del optimizer.found_inf  # type: ignore[attr-defined]
        return
    tensors = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    tensors += [t for state in optimizer.state.values() for t in state.values() if t.dim()]
    before = [t.detach().clone() for t in tensors]
    optimizer.step()
    with torch.no_grad():
        for tensor, old in zip(tensors, before, strict=True):
            torch.where(all_finite, tensor, old, out=tensor)


def _sgd(section: SgdSection, groups: list[dict[str, object]]) -> Optimizer:
    """Fused SGD.

    PyTorch's update equals that of Torch 7, which the papers used: the momentum buffer starts as the first gradient,
    without dampening, and weight decay is added to the gradient.
    """
    return SGD(groups, lr=section.lr, momentum=section.momentum, nesterov=section.nesterov, fused=True)


def _rmsprop(section: RmspropSection, groups: list[dict[str, object]]) -> Optimizer:
    return RMSprop(groups, section.lr, section.decay, section.epsilon, momentum=section.momentum, foreach=True)
