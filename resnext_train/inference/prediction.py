"""What is predicted for an image, and what is to be predicted. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from resnext_train.config import Recipe


@dataclass(frozen=True, repr=False)
class Prediction:
    """The best classes of an image, best first.

    >>> Prediction(("n01443537", "n02123394"), (0.75, 0.25), ("goldfish", "Persian cat"))
    Prediction(n01443537 goldfish 75.0 %, n02123394 Persian cat 25.0 %)
    """

    classes: tuple[str, ...]
    """Their names."""
    scores: tuple[float, ...]
    """Their probabilities, from 0 to 1."""
    titles: tuple[str, ...] | None = None
    """What people call them; None: not known."""

    def __repr__(self) -> str:
        titles = self.titles or ("",) * len(self.classes)
        named = [" ".join(filter(None, pair)) for pair in zip(self.classes, titles, strict=True)]
        shown = (f"{name} {100 * score:.1f} %" for name, score in zip(named, self.scores, strict=True))
        return f"Prediction({', '.join(shown)})"


class ImageRow(NamedTuple):
    """What became of an image in a list."""

    path: str
    prediction: Prediction | None
    """None: the image could not be read."""
    error: str = ""
    """Why it could not."""


@dataclass(frozen=True)
class PredictionRequest:
    """Images to classify, and where the predictions go."""

    checkpoint: Path
    """A checkpoint of this tool, or a file of foreign weights."""
    words: tuple[str, ...]
    """What names the images, see `find_images`."""
    top: int
    """Classes of each image."""
    recipe: Recipe | None = None
    """The recipe of foreign weights; for a checkpoint it replaces all sections but the model."""
    overrides: tuple[str, ...] = ()
    """`section.key=value`, for the recipe in a checkpoint."""
    weights: str = "auto"
    """Which weights of a checkpoint that holds two: auto, model or ema."""
    classes: str | None = None
    """File or folder with the class names of foreign weights, in order."""
    csv: str | None = None
    json: str | None = None
    """Files of the predictions; without one they are printed."""
