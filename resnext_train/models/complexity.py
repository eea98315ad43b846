"""Count a network's parameters and multiply-adds, in total and by stage, on the meta device."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from resnext_train.config import ModelSection
from resnext_train.errors import InputError
from resnext_train.models.architecture import shape_of
from resnext_train.models.build_model import build_on_meta
from resnext_train.models.resnet import ResNet
from resnext_train.models.shapes_only import ShapesOnly


@dataclass(frozen=True)
class Part:
    """One top-level module of a network: the shape of its output for one image, and its cost.

    `output` is empty if it is not a single tensor. `training_only`: not used in evaluation (auxiliary classifiers).
    """

    name: str
    output: tuple[int, ...]
    parameters: int
    multiply_adds: int
    training_only: bool


@dataclass(frozen=True)
class Complexity:
    """Learnable parameters, and multiply-adds for one image of `size` × `size` pixels in evaluation."""

    parameters: int
    multiply_adds: int
    size: int
    parts: tuple[Part, ...]

    @property
    def auxiliary_parameters(self) -> int:
        """Those of the parameters that only training uses."""
        return sum(p.parameters for p in self.parts if p.training_only)


def measure(section: ModelSection, num_classes: int, size: int) -> Complexity:
    """Measure the network of a model section without computing anything.

    Multiply-adds are those of convolutions, of which a blur is one, and matrix products: half of what torch's counter
    calls FLOPs. Bottlenecks are counted in form c, which is much faster; all forms have the same weights.

    Raises:
        InputError: an unknown network, or one that cannot take images of this size.
    """
    return _measure(shape_of(section), num_classes, size)


@functools.lru_cache(maxsize=128)  # recipes share networks
def _measure(section: ModelSection, num_classes: int, size: int) -> Complexity:
    model = build_on_meta(section, num_classes).eval()
    outputs: dict[str, tuple[int, ...]] = {}
    used: set[str] = set()
    for name, module in model.named_modules():
        module.register_forward_hook(_watch(name, outputs, used))
    with FlopCounterMode(display=False) as counter:
        _run(model, section, 1, size)
    flops = {name.split(".", 1)[-1]: sum(ops.values()) for name, ops in counter.get_flop_counts().items()}
    parts = tuple(
        Part(name, outputs.get(name, ()), _parameters(module), flops.get(name, 0) // 2, name not in used)
        for name, module in model.named_children()
        if name in used or _parameters(module)
    )
    return Complexity(_parameters(model), counter.get_total_flops() // 2, size, parts)


def _watch(name: str, outputs: dict[str, tuple[int, ...]], used: set[str]) -> Callable[..., None]:
    """Return a hook that records a module's output shape, and its top-level module as used."""

    def hook(module: nn.Module, inputs: object, output: object) -> None:
        used.add(name.partition(".")[0])
        if isinstance(output, torch.Tensor):
            outputs[name] = tuple(output.shape[1:])

    return hook


def check_training(section: ModelSection, num_classes: int, size: int) -> None:
    """Raise InputError if the network cannot be trained on images of `size` × `size` pixels."""
    _run(build_on_meta(section, num_classes).train(), section, 2, size)


def _run(model: nn.Module, section: ModelSection, images: int, size: int) -> None:
    if isinstance(model, ResNet) and size < model.architecture.reduction:
        least = model.architecture.reduction
        raise InputError(f"{section.arch} divides an image by {least}; images of {size} × {size} pixels are too small")
    try:
        with torch.no_grad(), ShapesOnly():
            model(torch.empty(images, 3, size, size, device="meta"))
    except (RuntimeError, ValueError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"{section.arch} cannot take images of {size} × {size} pixels: {reason}") from error


def _parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())
