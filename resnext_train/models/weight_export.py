"""Export weights under torchvision's names, and check them in another network."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor, nn
from torchvision.models import resnet as torchvision_resnet

from resnext_train.config import ModelSection
from resnext_train.errors import InputError
from resnext_train.models.architecture import Architecture
from resnext_train.models.bottleneck_forms import convert_form
from resnext_train.models.build_model import build_model
from resnext_train.models.resnet import ResNet

TOLERANCE = 1e-9
"""Largest accepted difference of logits between a network and its export, in fp64, relative to the largest logit."""


def portable_weights(model: nn.Module) -> dict[str, Tensor]:
    """Return the model's weights on the CPU under torchvision's names, bottlenecks in form c."""
    weights = model.state_dict()
    if isinstance(model, ResNet) and model.architecture.block == "bottleneck":
        weights = convert_form(weights, "c", model.architecture.cardinality)
    return {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}


def portable_model(model: nn.Module, section: ModelSection) -> nn.Module:
    """Return the model with bottlenecks in form c, which has the fewest operations; the model itself if it is that."""
    if not isinstance(model, ResNet) or model.architecture.form == "c":
        return model
    portable = build_model(section.model_copy(update={"form": "c"}), model.fc.out_features)
    portable.load_state_dict(portable_weights(model))
    return portable.train(model.training)


def torchvision_twin(architecture: Architecture, num_classes: int) -> nn.Module | None:
    """Return torchvision's network of this architecture, freshly initialised; None if torchvision has none."""
    a = architecture
    theirs = Architecture(a.block, a.blocks, a.cardinality, a.base_width, form=a.form, training=a.training)
    if a != theirs or len(a.blocks) != 4:
        return None
    block = torchvision_resnet.BasicBlock if a.block == "basic" else torchvision_resnet.Bottleneck
    options = {"groups": a.cardinality, "width_per_group": a.base_width}
    return torchvision_resnet.ResNet(block, list(a.blocks), num_classes, **options)  # type: ignore[no-any-return]


def check_portable(model: nn.Module, section: ModelSection, weights: dict[str, Tensor], size: int) -> tuple[str, float]:
    """Load `weights` into another network, torchvision's if it has this one, and compare the logits.

    Return that network in words, and the result of `compare_networks`.

    Raises:
        InputError: the model's own logits are not finite.
    """
    other, reader = None, "resnext-train's own network"
    if isinstance(model, ResNet):
        classes = model.fc.out_features
        other = torchvision_twin(model.architecture, classes)
        reader = reader if other is None else "torchvision's network"
        other = other or build_model(section.model_copy(update={"form": "c"}), classes)
    else:
        other, reader = deepcopy(model), f"a copy of {section.arch}"
        for tensor in other.state_dict().values():
            tensor.zero_()
    other.load_state_dict(weights)
    return reader, compare_networks(model, other, size)


def compare_networks(model: nn.Module, other: nn.Module, size: int) -> float:
    """Return `largest_difference` of the logits of two networks in evaluation, on two random images in fp64.

    ResNets get images of at most 96 × 96 pixels, for speed; others of `size` × `size`.

    Raises:
        InputError: the model's own logits are not finite.
    """
    size = min(size, 96) if isinstance(model, ResNet) else size
    images = random_images(2, size).double()
    with torch.no_grad():
        expected, actual = (deepcopy(m).double().eval()(images) for m in (model, other))
    return largest_difference(expected, actual)


def random_images(count: int, size: int) -> Tensor:
    """Return images as a network takes them, the same in each call: float32 (count, 3, size, size), standard normal."""
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(count))


def largest_difference(expected: Tensor, actual: Tensor) -> float:
    """Return the largest absolute difference between logits, relative to the largest expected one.

    Raises:
        InputError: the expected logits are not finite.
    """
    if not torch.isfinite(expected).all():
        raise InputError("the weights give logits that are not finite; there is nothing to compare")
    largest = expected.abs().max().clamp(min=torch.finfo(expected.dtype).tiny)
    return float((expected - actual).abs().max() / largest)
