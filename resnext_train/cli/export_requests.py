"""What `resnext export` is asked for. Imports no torch."""

from __future__ import annotations

import os
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path

from resnext_train.cli.requests import given_recipe, named_checkpoint
from resnext_train.config import Recipe
from resnext_train.errors import InputError
from resnext_train.export.export_formats import check_libraries, format_of


@dataclass(frozen=True)
class Target:
    """A file or folder to write."""

    path: Path
    format: str
    """A name in FORMATS of export/export_formats.py."""

    @property
    def beside(self) -> Path | None:
        """The file that holds its metadata, if it holds none itself."""
        return self.path.with_suffix(".json") if self.format == "pth" else None


@dataclass(frozen=True)
class ExportRequest:
    """A checkpoint whose network is to be written to files and folders."""

    checkpoint: Path
    recipe: Recipe | None
    targets: list[Target]
    weights: str = "auto"
    """Which weights of a checkpoint that holds two: auto, model or ema."""


def read_export(args: Namespace) -> ExportRequest:
    """Read the recipe, if one is given, and check that all targets can be written.

    Raises:
        InputError: as `resnext export` shows it.
    """
    recipe = given_recipe(args.config, [])
    checkpoint = named_checkpoint(args.ckpt)
    targets = [Target(Path(out), format_of(Path(out), args.format)) for out in args.out]
    seen: set[Path] = set()
    for target in targets:
        for path in (target.path, *([target.beside] if target.beside else [])):
            _check_free(path, seen)
        check_libraries(target.format)
    return ExportRequest(checkpoint, recipe, targets, args.weights)


def _check_free(path: Path, seen: set[Path]) -> None:
    if path in seen:
        raise InputError(f"--out: {path} would be written twice; choose another name")
    seen.add(path)
    if os.path.lexists(path):
        raise InputError(f"--out: {path} exists already; remove it or choose another name")
    if not path.absolute().parent.is_dir():
        raise InputError(f"--out: the folder of {path} does not exist; make it first")
