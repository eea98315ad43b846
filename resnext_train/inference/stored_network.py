"""A network in a file: its weights, its recipe and, where the file has them, its classes and result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from resnext_train.checkpoint import checkpoint_file
from resnext_train.checkpoint.stored_weights import KINDS, Kind, check_choice, stored_weights
from resnext_train.config import FolderData, Recipe, recipe_from_dict
from resnext_train.data.build_loaders import build_views
from resnext_train.data.class_titles import find_titles
from resnext_train.errors import InputError
from resnext_train.inference.weights_metadata import portable_recipe, read_metadata
from resnext_train.models.architecture import check_model
from resnext_train.models.build_model import build_model
from resnext_train.models.complexity import measure
from resnext_train.models.weight_conversion import classes_in, find_state_dict, load_weights, untaken_average
from resnext_train.regular_file import user_path


@dataclass(frozen=True)
class StoredNetwork:
    """What a checkpoint or an export of this tool, or a file of foreign weights with its recipe, holds."""

    path: Path
    weights: dict[str, Tensor]
    recipe: Recipe
    classes: tuple[str, ...] | None
    """Class names by output; None: the file has none."""
    is_ours: bool
    """Whether it is a checkpoint of this tool, or was exported from one."""
    result: dict[str, Any] | None = None
    """The evaluation of these weights during training, if there was one, see `EvalCounts.to_dict`."""
    titles: tuple[str, ...] | None = None
    """Class names in plain words by output; None: the file has none."""
    kind: Kind | None = None
    """Which weights these are; None: there was no choice."""
    untaken: str | None = None
    """Under which key a foreign file holds an average of the weights beside them; None: it holds none."""

    def build(self, num_classes: int) -> tuple[nn.Module, str]:
        """Return the network on the CPU, with its weights, and whose names these have.

        Raises:
            InputError: the weights do not fit the recipe's network of `num_classes` classes.
        """
        model = build_model(self.recipe.model, num_classes)
        return model, load_weights(model, self.weights, str(self.path), self.recipe.model)

    @property
    def kind_text(self) -> str:
        """Which weights these are, for people, or ""."""
        return KINDS[self.kind] if self.kind else ""

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

    def titles_of(self, classes: Sequence[str]) -> tuple[str, ...] | None:
        """Return human names of some of the network's classes: the file's own, or those that its recipe leads to.

        Raises:
            InputError: see `find_titles`.
        """
        data = self.recipe.data
        if data.titles is None and self.titles is not None and self.classes is not None:
            known = dict(zip(self.classes, self.titles, strict=True))
            return tuple(known[name] for name in classes)
        root = user_path(data.root) if isinstance(data, FolderData) and data.root else None
        return find_titles(classes, data.titles, root)


def read_network(
    path: Path, recipe: Recipe | None = None, overrides: Sequence[str] = (), weights: str = "auto"
) -> StoredNetwork:
    """Read a checkpoint of this tool, weights that it exported, or foreign weights, which need their `recipe`.

    The file's own recipe is taken, with `overrides`; or `recipe`, with the model section of the file's own. `weights`
    is auto, model or ema, see `stored_weights`.

    Raises:
        InputError: the file cannot be read, is damaged, lacks these weights, foreign ones come without a recipe, or an
            override changes the network.
    """
    content: Any = checkpoint_file.load_file(path)
    if checkpoint_file.is_ours(content):
        used, chosen = _used_recipe(content["recipe"], path, recipe, overrides), stored_weights(content, weights, path)
        classes = tuple(content["classes"])
        return StoredNetwork(path, chosen.weights, used, classes, True, chosen.result, kind=chosen.kind)
    found = find_state_dict(content, str(path))
    metadata = read_metadata(path, found)
    check_choice(weights, [metadata.weights or "model"] if metadata else None, path)
    if metadata is not None:
        # Also when it is read: a file from elsewhere must not name files of this machine.
        own = portable_recipe(recipe_from_dict(metadata.recipe, f"recipe in {path}")).to_dict()
        used = _used_recipe(own, path, recipe, overrides)
        named, titles = (None if texts is None else tuple(texts) for texts in (metadata.classes, metadata.titles))
        result = None if metadata.result is None else metadata.result.model_dump()
        return StoredNetwork(path, found, used, named, named is not None, result, titles, metadata.weights)
    if recipe is None:
        raise InputError(f"{path} was not written by resnext-train: give the recipe of its weights with --config")
    return StoredNetwork(path, found, recipe, None, is_ours=False, untaken=untaken_average(content))


def _used_recipe(stored: Mapping[str, Any], path: Path, recipe: Recipe | None, overrides: Sequence[str]) -> Recipe:
    """Return the recipe in a file with `overrides`, or `recipe`; the model section is the file's in any case."""
    for override in overrides:
        if override.startswith("model."):
            raise InputError(f"override {override!r}: the network of {path} cannot be changed, only evaluated")
    own = recipe_from_dict(stored, f"recipe in {path}", overrides)
    model = recipe_from_dict(stored, f"recipe in {path}").model
    check_model(model)
    return (recipe or own).model_copy(update={"model": model})
