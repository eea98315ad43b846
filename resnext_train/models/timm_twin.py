"""Find the network of timm that is the same as a recipe's, so that timm can load its weights."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from resnext_train.config import ModelSection
from resnext_train.errors import InputError
from resnext_train.models.architecture import Architecture, architecture_of, library_of
from resnext_train.models.build_model import build_on_meta


@dataclass(frozen=True)
class TimmTwin:
    """A network of timm: `timm.create_model(architecture, **arguments)`."""

    architecture: str
    arguments: dict[str, Any] = field(default_factory=dict)
    """What changes the architecture: numbers of blocks, cardinality, base width."""


def timm_twin(section: ModelSection, num_classes: int) -> TimmTwin:
    """Return timm's network with the names and shapes of a recipe's network. timm is installed.

    Raises:
        InputError: timm has none.
    """
    library = library_of(section)
    if library and library[0] == "timm":
        return TimmTwin(library[1].partition(".")[0])  # without the tag of pretrained weights
    if library is None and (problem := _beyond_timm(architecture_of(section))):
        raise InputError(f"timm builds no network with {problem}, as {section.arch} has; export it as .safetensors")
    name = library[1] if library else section.arch
    if _has_same_weights(name, section, num_classes):
        return TimmTwin(name)
    if library:
        raise InputError(f"timm has no network with the weights of {section.arch}; export it as .safetensors")
    a = architecture_of(section)
    if a.block == "basic":
        return TimmTwin("resnet18", {"layers": list(a.blocks)})
    return TimmTwin("resnet50", {"layers": list(a.blocks), "cardinality": a.cardinality, "base_width": a.base_width})


def _beyond_timm(a: Architecture) -> str:
    """Return what an architecture has that no argument of timm's ResNet says, or ""."""
    beyond = {
        "three stages": len(a.blocks) != 4,
        "a CIFAR stem": a.stem != "imagenet",
        "pre-activation": a.preactivation,
        "blocks without shortcuts": not a.residual,
        f"shortcut {a.shortcut}": a.shortcut != "B",
        f"model.width {a.width:g}": a.width != 1,
        "model.blur_pool": a.blur_pool,  # timm's own aa_layer blurs elsewhere: after BN and ReLU, in the stem
        f"model.bn_epsilon {a.bn_epsilon:g}": a.bn_epsilon != 1e-5,
    }
    return next((what for what, present in beyond.items() if present), "")


def _has_same_weights(name: str, section: ModelSection, num_classes: int) -> bool:
    """Return whether timm has a network of this name whose weights have the names and shapes of `section`'s."""
    import timm

    if not timm.is_model(name):
        return False
    theirs, ours = (
        {key: tensor.shape for key, tensor in build_on_meta(network, num_classes).state_dict().items()}
        for network in (ModelSection(arch=f"timm/{name}"), section)
    )
    return theirs == ours
