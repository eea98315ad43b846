"""What is to be evaluated, and what is written of it. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from resnext_train.config import Recipe
from resnext_train.distributed.rank import PATIENCE

OUTPUT_FILES = ("result.json", "predictions.csv", "classes.csv", "confusion.csv", "mistakes.png")
"""What the folder of --out holds."""


@dataclass(frozen=True)
class EvaluationRequest:
    """Networks to evaluate on one set of images: one, or several as an ensemble."""

    checkpoints: tuple[Path, ...]
    """Checkpoints of this tool, or files of foreign weights."""
    recipe: Recipe | None = None
    """The recipe of foreign weights; for checkpoints it replaces all sections but the model."""
    overrides: tuple[str, ...] = ()
    """`section.key=value`, for the recipes in the checkpoints."""
    weights: str = "auto"
    """Which weights of checkpoints that hold two: auto, model or ema."""
    classes: str | None = None
    """File or folder with the class names of foreign weights, in order."""
    recalibrate_bn: int = 0
    """Training images from which BatchNorm statistics are taken anew; 0: none."""
    predictions: str | None = None
    """CSV or Parquet file with a line for each image."""
    out: str | None = None
    """Folder for tables and pictures."""
    json: str | None = None
    """File of the result."""

    @property
    def patience_seconds(self) -> float:
        """How long ranks wait for each other, in seconds."""
        return PATIENCE
