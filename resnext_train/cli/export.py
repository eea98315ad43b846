"""`resnext export`: write weights for other programs and check them by reading them back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import nn

from resnext_train import __version__
from resnext_train.checkpoint import checkpoint_file
from resnext_train.cli.requests import ExportRequest
from resnext_train.cli.run_command import announce
from resnext_train.config import Recipe, recipe_from_dict
from resnext_train.errors import InputError
from resnext_train.models.architecture import title_of
from resnext_train.models.build_model import build_model
from resnext_train.models.complexity import measure
from resnext_train.models.weight_conversion import classes_in, find_state_dict, load_weights
from resnext_train.models.weight_export import TOLERANCE, check_portable, portable_weights


def export(request: ExportRequest) -> None:
    """Write the weights to all files."""
    model, recipe, metadata = _load(request.checkpoint, request.recipe)
    for target in request.targets:
        _write(model, recipe, target, metadata)


def _load(path: Path, recipe: Recipe | None) -> tuple[nn.Module, Recipe, dict[str, str]]:
    """Return a checkpoint's network with its weights, its recipe, and the metadata for the exported file."""
    content: Any = checkpoint_file.load_file(path)
    ours = checkpoint_file.is_ours(content)
    weights = find_state_dict(content, str(path))
    if ours:
        if recipe is not None:
            raise InputError(f"--config is for foreign weights; {path} holds its own recipe")
        recipe = recipe_from_dict(content["recipe"], f"recipe in {path}")
    if recipe is None:
        raise InputError(f"{path} was not written by resnext-train: give the recipe of its weights with --config")
    stated = recipe.model.num_classes
    classes = len(content["classes"]) if ours else stated if stated != "auto" else classes_in(weights, recipe.model)
    if classes is None:
        raise InputError(f"{path} does not show its number of classes; state model.num_classes in the recipe")
    measure(recipe.model, classes, recipe.eval.crop)  # raises InputError for a size that the network cannot take
    model = build_model(recipe.model, classes)
    origin = load_weights(model, weights, str(path), recipe.model)
    if not ours:
        announce(origin)
    metadata = {"network": title_of(recipe.model), "written_by": f"resnext-train {__version__}"}
    if ours:
        metadata["classes"] = json.dumps(content["classes"])
    return model, recipe, metadata


def _write(model: nn.Module, recipe: Recipe, target: Path, metadata: dict[str, str]) -> None:
    """Write one file, read it back into a new network and compare the logits."""
    weights = portable_weights(model)
    try:
        checkpoint_file.save_weights(weights, target, metadata)
    except OSError as error:
        raise InputError(f"--out: {target} cannot be written: {error.strerror}") from error
    try:
        reader, difference = check_portable(model, recipe.model, checkpoint_file.load_file(target), recipe.eval.crop)
    except InputError:
        target.unlink()
        raise
    if not difference <= TOLERANCE:
        target.unlink()
        raise InputError(
            f"{target}, read back into {reader}, gave other logits (they differ by {difference:.2g}) and was removed; "
            "the disk or the file system may be at fault"
        )
    count = sum(t.numel() for t in weights.values())
    announce(f"{target}: {count:,} numbers; read back into {reader}, its logits differ by {difference:.2g}")
