"""From the recipe's model section to a network."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from resnext_train.config import ModelSection
from resnext_train.models.architecture import Architecture, architecture_of, library_of
from resnext_train.models.bottleneck_forms import convert_form
from resnext_train.models.resnet import ResNet
from resnext_train.models.third_party_models import AUXILIARY_WEIGHTS, build_third_party


def build_model(section: ModelSection, num_classes: int, seed: int = 0) -> nn.Module:
    """A freshly initialised network on the current default device; its weights are a function of `seed`.

    Raises:
        InputError: an unknown network name or hyper-parameters that do not fit it.
    """
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        library = library_of(section)
        if library:
            return build_third_party(*library, num_classes)
        return _build_resnet(architecture_of(section), num_classes)


def _build_resnet(architecture: Architecture, num_classes: int) -> ResNet:
    """Forms a and b start from the weights of form c, so that one seed gives one function, whatever its form.

    Drawn by themselves, their narrow convolutions would have a fan-out smaller by the cardinality, and so weights
    larger by its root.
    """
    grouped = ResNet(replace(architecture, form="c"), num_classes)
    if architecture.form == "c":
        return grouped
    with torch.device("meta"):
        model = ResNet(architecture, num_classes)
    weights = convert_form(grouped.state_dict(), architecture.form, architecture.cardinality)
    model.load_state_dict({k: v.clone() for k, v in weights.items()}, assign=True)
    return model


def build_on_meta(section: ModelSection, num_classes: int) -> nn.Module:
    """The network without memory for its weights, bottlenecks in form c: for its shapes and sizes.

    Raises:
        InputError: as build_model.
    """
    section = section.model_copy(update={"form": "c"})
    try:
        with torch.device("meta"):
            return build_model(section, num_classes)
    except NotImplementedError:  # constructors that compute with tensors, such as torchvision's RegNet
        return build_model(section, num_classes).to("meta")


def classifier_names(section: ModelSection) -> tuple[str, ...]:
    """The parameters whose shapes depend on the number of classes, auxiliary classifiers included."""
    few, more = (build_on_meta(section, n).state_dict() for n in (7, 11))
    return tuple(name for name, tensor in few.items() if tensor.shape != more[name].shape)


def auxiliary_weight(section: ModelSection) -> float:
    """Weight of each auxiliary classifier's loss; 0 for networks that have none."""
    if section.auxiliary_weight is not None:
        return section.auxiliary_weight
    return AUXILIARY_WEIGHTS.get(section.arch, 0.0)
