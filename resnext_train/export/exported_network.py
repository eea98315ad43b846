"""What is exported, and what the check of an export finds; all writers take the one and return the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from resnext_train.config import Recipe
from resnext_train.models.weight_export import (
    largest_difference,
    portable_model,
    portable_weights,
    random_images,
)

TOLERANCE = 1e-4
"""Largest accepted difference of logits between a network and its graph in another program, in fp32, relative to the
largest logit: other programs fold BN into convolutions and sum in another order."""

BATCHES = (1, 2, 5)
"""Numbers of images that a graph must take."""


@dataclass(frozen=True)
class ExportedNetwork:
    """A network in evaluation on the CPU, its recipe, and the metadata of its files (see make_metadata)."""

    model: nn.Module
    recipe: Recipe
    metadata: dict[str, Any]

    @cached_property
    def weights(self) -> dict[str, Tensor]:
        """Those of `model`, as other programs name them."""
        return portable_weights(self.model)

    @cached_property
    def graph(self) -> nn.Module:
        """The network to trace: in float32, bottlenecks in form c."""
        return portable_model(self.model, self.recipe.model).float().eval()

    @property
    def size(self) -> int:
        """Height and width of its images in pixels."""
        return self.recipe.eval.crop

    @cached_property
    def outputs(self) -> int:
        """Number of its outputs."""
        with torch.no_grad():
            return int(self.graph(random_images(1, self.size)).shape[1])

    def compare_graph(self, run: Callable[[Tensor], Tensor]) -> float:
        """Return the largest difference of `run`'s logits from the network's, over all BATCHES of random images.

        Raises:
            InputError: the network's logits are not finite.
        """
        differences = []
        for count in BATCHES:
            images = random_images(count, self.size)
            with torch.no_grad():
                differences.append(largest_difference(self.graph(images), run(images)))
        return max(differences)


@dataclass(frozen=True)
class Agreement:
    """How far the logits of what was written are from the network's."""

    reader: str
    """What read it back, in words."""
    difference: float
    """Largest difference, relative to the largest logit."""
    tolerance: float
    """What is accepted."""

    @property
    def holds(self) -> bool:
        """Whether the difference is accepted; NaN never is."""
        return self.difference <= self.tolerance
