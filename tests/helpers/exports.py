"""Networks to export, without a run that trains them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from resnext_train.config import Recipe, recipe_from_dict
from resnext_train.export.exported_network import ExportedNetwork
from resnext_train.inference.weights_metadata import make_metadata
from resnext_train.models.build_model import build_model
from resnext_train.models.weight_export import portable_weights

CLASSES = ("ant", "bee", "cat", "dog", "emu")
TITLES = ("Ant", "Honey bee", "Cat", "Dog", "Emu, a bird")
RESULT = {
    "count": 40,
    "top1_correct": 30,
    "top5_correct": 40,
    "top1": 75.0,
    "top5": 100.0,
    "loss": 0.5,
    "unreadable": 0,
}


def disturb_batch_norm(model: nn.Module, seed: int = 0) -> nn.Module:
    """Give BN random statistics, scales and shifts: fresh ones would let most mistakes pass."""
    g = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            for tensor, low, high in (
                (module.running_mean, -0.2, 0.2),
                (module.running_var, 0.5, 1.5),
                (module.weight.data, 0.5, 1.5),
                (module.bias.data, -0.2, 0.2),
            ):
                tensor.uniform_(low, high, generator=g)
    return model


def small_recipe(arch: str, **model: Any) -> Recipe:
    evaluation = {"resize": 56, "crop": 48, "interpolation": "bilinear"}
    sections = {"model": {"arch": arch, **model}, "eval": evaluation, "data": {"mean": [0.5, 0.4, 0.3]}}
    return recipe_from_dict(sections, "test")


def exported(recipe: Recipe) -> ExportedNetwork:
    """A network of five classes with random weights, ready to be written."""
    model = disturb_batch_norm(build_model(recipe.model, len(CLASSES))).eval()
    metadata = make_metadata(recipe, portable_weights(model), CLASSES, TITLES, RESULT)
    return ExportedNetwork(model, recipe, metadata)


def logits_of(model: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad():
        computed: Tensor = model.eval()(images)
    return computed


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())
