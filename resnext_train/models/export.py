"""Weights for elsewhere: torchvision's names, and the network there that they fit."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.models import resnet as torchvision_resnet

from resnext_train.models.architecture import Architecture
from resnext_train.models.resnet import ResNet
from resnext_train.models.resnext import convert_form

TOLERANCE = 1e-9
"""Largest difference of logits in fp64, relative to the largest logit, between a network and what was made of it."""


def portable_weights(model: nn.Module) -> dict[str, Tensor]:
    """The model's weights on the CPU under torchvision's names, bottlenecks in form c."""
    weights = model.state_dict()
    if isinstance(model, ResNet) and model.architecture.form != "c":
        weights = convert_form(weights, "c", model.architecture.cardinality)
    return {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}


def torchvision_twin(architecture: Architecture, num_classes: int) -> nn.Module | None:
    """torchvision's network of this architecture, freshly initialised; None where torchvision cannot build it."""
    a = architecture
    plain = Architecture(a.block, a.blocks, a.cardinality, a.base_width, form=a.form)
    if a != plain or len(a.blocks) != 4:
        return None
    block = torchvision_resnet.BasicBlock if a.block == "basic" else torchvision_resnet.Bottleneck
    return torchvision_resnet.ResNet(  # type: ignore[no-any-return]
        block, list(a.blocks), num_classes, groups=a.cardinality, width_per_group=a.base_width
    )


def largest_difference(one: nn.Module, other: nn.Module, size: int) -> float:
    """Largest difference between two networks' logits, relative to the largest logit, on two random images in fp64."""
    images = torch.randn(2, 3, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        first, second = (model.double().eval()(images) for model in (one, other))
    return float((first - second).abs().max() / first.abs().max())
