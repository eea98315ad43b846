"""The optimizer."""

from __future__ import annotations

import torch
from torch import nn
from torch.optim import SGD, Optimizer, RMSprop

from resnext_train.config import OptimizerSection, RmspropSection, SgdSection


def build_optimizer(section: OptimizerSection, model: nn.Module) -> Optimizer:
    """The optimizer over all parameters; with `decay_1d` false, vectors (BN, biases) are in a group without decay."""
    groups = [
        {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": section.weight_decay},
        {
            "params": [p for p in model.parameters() if p.ndim <= 1],
            "weight_decay": section.weight_decay if section.decay_1d else 0.0,
        },
    ]
    if isinstance(section, RmspropSection):
        return RMSprop(groups, section.lr, section.decay, section.epsilon, momentum=section.momentum, foreach=True)
    return _sgd(section, groups)


def _sgd(section: SgdSection, groups: list[dict[str, object]]) -> Optimizer:
    """Fused SGD.

    PyTorch's update equals that of Torch 7, which the papers used: the momentum buffer starts as the first gradient,
    without dampening, and weight decay is added to the gradient. The buffers are made here as zeros, which comes to the
    same; the fused update would make them itself in the first step, but leave them uninitialised if fp16's loss scaling
    skips that step.
    """
    optimizer = SGD(groups, lr=section.lr, momentum=section.momentum, nesterov=section.nesterov, fused=True)
    if section.momentum:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer
