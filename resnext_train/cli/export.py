"""`resnext export`: write weights for other programs and check them by reading them back."""

from __future__ import annotations

import json
from pathlib import Path

from torch import nn

from resnext_train import __version__
from resnext_train.checkpoint import checkpoint_file
from resnext_train.cli.requests import ExportRequest
from resnext_train.cli.run_command import announce
from resnext_train.config import Recipe
from resnext_train.errors import InputError
from resnext_train.inference.stored_network import read_network
from resnext_train.models.architecture import title_of
from resnext_train.models.complexity import measure
from resnext_train.models.weight_export import TOLERANCE, check_portable, portable_weights


def export(request: ExportRequest) -> None:
    """Write the weights to all files."""
    model, recipe, metadata = _load(request.checkpoint, request.recipe)
    for target in request.targets:
        _write(model, recipe, target, metadata)


def _load(path: Path, recipe: Recipe | None) -> tuple[nn.Module, Recipe, dict[str, str]]:
    """Return a checkpoint's network with its weights, its recipe, and the metadata for the exported file."""
    stored = read_network(path, recipe)
    if stored.is_ours and recipe is not None:
        raise InputError(f"--config is for foreign weights; {path} holds its own recipe")
    section = stored.recipe.model
    measure(section, stored.outputs, stored.recipe.eval.crop)  # raises InputError for a size that it cannot take
    model, origin = stored.build(stored.outputs)
    if not stored.is_ours:
        announce(origin)
    metadata = {"network": title_of(section), "written_by": f"resnext-train {__version__}"}
    if stored.classes is not None:
        metadata["classes"] = json.dumps(stored.classes)
    return model, stored.recipe, metadata


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
