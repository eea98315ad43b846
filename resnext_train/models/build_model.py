"""Build a network from the recipe's model section."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from resnext_train.config import ModelSection
from resnext_train.models.architecture import Architecture, architecture_of, library_of
from resnext_train.models.blocks import BlurPoolConv2d
from resnext_train.models.bottleneck_forms import convert_form
from resnext_train.models.resnet import ResNet
from resnext_train.models.shapes_only import ShapesOnly
from resnext_train.models.third_party_models import AUXILIARY_WEIGHTS, build_third_party


def build_model(section: ModelSection, num_classes: int, seed: int = 0) -> nn.Module:
    """Return a freshly initialised network on the current default device, with weights that depend on `seed` alone.

    Raises:
        InputError: an unknown network name, or hyper-parameters that do not fit it.
    """
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        library = library_of(section)
        if library:
            return build_third_party(*library, num_classes)
        return _build_resnet(architecture_of(section), num_classes)


def _build_resnet(architecture: Architecture, num_classes: int) -> ResNet:
    """Initialise forms a and b with the weights of form c, so that a seed gives the same function in every form.

    Initialised directly, their narrow convolutions would have a fan-out smaller by the factor C (the cardinality), and
    so weights larger by sqrt(C).
    """
    grouped = ResNet(replace(architecture, form="c"), num_classes)
    if architecture.form == "c":
        return grouped
    with torch.device("meta"):
        model = ResNet(architecture, num_classes)
    weights = convert_form(grouped.state_dict(), architecture.form, architecture.cardinality)
    model.load_state_dict({k: v.clone() for k, v in weights.items()}, assign=True)
    for module in model.modules():
        if isinstance(module, BlurPoolConv2d):
            module.make_filter()  # which is no weight, and so still without values
    return model


def build_on_meta(section: ModelSection, num_classes: int) -> nn.Module:
    """Build the network without memory for its weights, bottlenecks in form c, to read its shapes.

    Raises:
        InputError: as in `build_model`.
    """
    section = section.model_copy(update={"form": "c"})
    try:
        with ShapesOnly(), torch.device("meta"):
            return build_model(section, num_classes)
    except NotImplementedError:  # a constructor computes with tensors, as torchvision's RegNet does
        return build_model(section, num_classes).to("meta")


def classifier_names(section: ModelSection) -> tuple[str, ...]:
    """Return the parameters whose shapes depend on the number of classes, including auxiliary classifiers."""
    few, more = (build_on_meta(section, n).state_dict() for n in (7, 11))
    return tuple(name for name, tensor in few.items() if tensor.shape != more[name].shape)


def auxiliary_weight(section: ModelSection) -> float:
    """Return the weight of each auxiliary classifier's loss; 0 for networks without auxiliary classifiers."""
    if section.auxiliary_weight is not None:
        return section.auxiliary_weight
    return AUXILIARY_WEIGHTS.get(section.arch, 0.0)
