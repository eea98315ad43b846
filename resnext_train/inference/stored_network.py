"""A network in a file: its weights, its recipe and, where the file has them, its classes and result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from resnext_train.checkpoint import checkpoint_file
from resnext_train.config import Recipe, recipe_from_dict
from resnext_train.data.build_loaders import build_views
from resnext_train.errors import InputError
from resnext_train.models.build_model import build_model
from resnext_train.models.complexity import measure
from resnext_train.models.weight_conversion import classes_in, find_state_dict, load_weights


@dataclass(frozen=True)
class StoredNetwork:
    """What a checkpoint of this tool, or a file of foreign weights with its recipe, holds."""

    path: Path
    weights: dict[str, Tensor]
    recipe: Recipe
    classes: tuple[str, ...] | None
    """Class names by output; None: the file has none."""
    is_ours: bool
    """Whether it is a checkpoint of this tool."""
    result: dict[str, Any] | None = None
    """The evaluation of these weights during training, if there was one, see `EvalCounts.to_dict`."""

    def build(self, num_classes: int) -> tuple[nn.Module, str]:
        """Return the network on the CPU, with its weights, and whose names these have.

        Raises:
            InputError: the weights do not fit the recipe's network of `num_classes` classes.
        """
        model = build_model(self.recipe.model, num_classes)
        return model, load_weights(model, self.weights, str(self.path), self.recipe.model)

    def check_classes(self, known: int) -> None:
        """Refuse foreign weights whose number of outputs is not the number of class names `known`."""
        if not self.is_ours and classes_in(self.weights, self.recipe.model) not in (None, known):
            raise InputError(
                f"{self.path} has {classes_in(self.weights, self.recipe.model)} classes, but the names of {known} are "
                "known; name all of them in order by --classes"
            )

    def check_view_sizes(self) -> None:
        """Refuse a protocol that shows whole images to a network that does not take images of any size."""
        views = build_views(self.recipe.eval)
        for side in {min(views.sides), max(views.sides)} if views.crop is None else ():
            measure(self.recipe.model, self.outputs, side)

    @property
    def outputs(self) -> int:
        """Number of the network's outputs.

        Raises:
            InputError: neither the file nor the recipe says it.
        """
        if self.classes is not None:
            return len(self.classes)
        stated = self.recipe.model.num_classes
        outputs = classes_in(self.weights, self.recipe.model) if stated == "auto" else stated
        if outputs is None:
            raise InputError(f"{self.path} does not show its number of classes; state model.num_classes in the recipe")
        return outputs


def read_network(path: Path, recipe: Recipe | None = None, overrides: Sequence[str] = ()) -> StoredNetwork:
    """Read a checkpoint of this tool, or foreign weights, which need the `recipe` of their network.

    A checkpoint's own recipe is taken, with `overrides`; or `recipe`, with the checkpoint's model section.

    Raises:
        InputError: the file cannot be read, foreign weights come without a recipe, or an override changes the network.
    """
    content: Any = checkpoint_file.load_file(path)
    weights = find_state_dict(content, str(path))
    if not checkpoint_file.is_ours(content):
        if recipe is None:
            raise InputError(f"{path} was not written by resnext-train: give the recipe of its weights with --config")
        return StoredNetwork(path, weights, recipe, None, is_ours=False)
    for override in overrides:
        if override.startswith("model."):
            raise InputError(f"override {override!r}: the network of {path} cannot be changed, only evaluated")
    own = recipe_from_dict(content["recipe"], f"recipe in {path}", overrides)
    stored = recipe_from_dict(content["recipe"], f"recipe in {path}")
    used = (recipe or own).model_copy(update={"model": stored.model})
    progress = content["progress"]
    last = progress["last"] if not progress["epoch_is_open"] else None
    return StoredNetwork(path, weights, used, tuple(content["classes"]), is_ours=True, result=last)
