"""Find the file of a network that a user names. Imports no torch."""

from __future__ import annotations

import os
from pathlib import Path

from resnext_train.config import Recipe
from resnext_train.errors import InputError
from resnext_train.regular_file import why_no_file
from resnext_train.run_dir.run_paths import RunDir

EXPORTED_WEIGHTS = "model.safetensors"
"""The weights in a folder for timm."""


def checkpoint_path(path: str, option: str = "") -> Path:
    """Return the file that `path` is, the best.pt of the run folder that it is, or the weights of a folder for timm.

    `option` is what gave the path, for messages.

    Raises:
        InputError: there is none.
    """
    place = f"{option}: " if option else ""
    if os.path.isfile(exported := os.path.join(path, EXPORTED_WEIGHTS)):  # noqa: PTH113, PTH118  `path` is any text
        return Path(exported)
    if Path(path).suffix.lower() in (".onnx", ".pt2"):
        raise InputError(
            f"{place}{path} is a network for other programs, which is not read here; give the run or checkpoint that "
            "it was exported from, or its .safetensors or .pth"
        )
    if folder := run_folder(path):
        if not folder.best.is_file():
            last = f"; its last checkpoint is {folder.last}" if folder.last.is_file() else ""
            raise InputError(f"{place}run folder {path} holds no {folder.best.relative_to(folder.path)}{last}")
        return folder.best
    if why := why_no_file(path):
        raise InputError(f"{place}checkpoint {path} {why}{_others_than(path)}")
    return Path(path)


def run_folder(path: str) -> RunDir | None:
    """Return the run folder that `path` is, or whose checkpoints/ it is; None for anything else."""
    if not os.path.isdir(path):  # noqa: PTH112  unlike Path.is_dir: False for any odd path
        return None
    folder = Path(path)
    is_checkpoints = folder.name == RunDir(folder).checkpoints.name and not RunDir(folder).checkpoints.is_dir()
    return RunDir(folder.parent if is_checkpoints else folder)


def weights_path(recipe: Recipe) -> Path | None:
    """Return the file of a recipe's model.weights; None: the recipe names none.

    Raises:
        InputError: there is no such file.
    """
    named = recipe.model.weights
    return checkpoint_path(os.path.expanduser(named), "model.weights") if named else None  # noqa: PTH111  any text


def _others_than(path: str) -> str:
    """Return the newest runs beside a path where there is nothing, for messages."""
    parent = Path(path).parent
    try:
        found = [f for f in parent.iterdir() if RunDir(f).recipe.is_file()] if str(parent) != "." else []
        found.sort(key=lambda folder: folder.stat().st_mtime, reverse=True)
    except (OSError, ValueError):
        return ""
    return f"; {parent} holds {', '.join(folder.name for folder in found[:3])}" if found else ""
