"""Names of runs: the folders below runs/. Imports no torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path, PurePath

from resnext_train.config.recipe_files import run_name
from resnext_train.config.recipe_loader import LoadedRecipe
from resnext_train.config.train_sections import TrainSection

RUNS = Path("runs")
"""Where runs are that no `--out` places elsewhere."""


def default_name(config: str, loaded: LoadedRecipe) -> str:
    """Return the default name of a run of the recipe that --config names, loaded with the command's overrides.

    It is that of the recipe, see `run_name`; where an override changes the seed, with the seed behind it, so that a
    second seed is a second run.
    """
    files = [layer.values.get("train") for layer in loaded.layers if layer.text]
    stated = [section["seed"] for section in files if isinstance(section, Mapping) and "seed" in section]
    own = stated[-1] if stated else TrainSection.model_fields["seed"].default
    seed = loaded.recipe.train.seed
    return run_name(config) + (f"-seed{seed}" if seed != own else "")


def is_run_name(name: str) -> bool:
    """Return whether `name` is a folder's name, or several joined by slashes, below another folder."""
    parts = PurePath(name).parts
    return bool(parts) and "\0" not in name and not PurePath(name).is_absolute() and ".." not in parts


def name_part(value: str) -> str:
    """Return a value as part of a name: what shells and file systems read otherwise becomes "_"."""
    return re.sub(r"[^\w.+-]+", "_", value).strip("_") or "_"
