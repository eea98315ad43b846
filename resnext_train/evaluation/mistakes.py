"""The most confident mistakes of an evaluation. Imports no torch."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from resnext_train.evaluation.image_results import ImageResults


class Mistake(NamedTuple):
    """An image whose label is not the predicted class."""

    number: int
    """Of the image."""
    label: int
    predicted: int
    score: float
    """Probability of the predicted class."""
    rank: int
    """Of the label among all classes, from 0."""


class ConfidentMistakes:
    """Keeps the `most` mistakes of the highest probability; of equally probable ones, the first images."""

    def __init__(self, most: int = 48) -> None:
        self._most = most
        self._kept: list[Mistake] = []

    def add(self, results: ImageResults) -> None:
        # The scores of a network that diverged are no numbers; they come last.
        scores = np.nan_to_num(results.scores[:, 0], nan=-1.0)
        wrong = np.flatnonzero(results.ranks > 0)
        wrong = wrong[np.lexsort((results.numbers[wrong], -scores[wrong]))][: self._most]
        columns: tuple[Any, ...] = (results.numbers, results.labels, results.classes[:, 0], scores, results.ranks)
        found = [Mistake(*values) for values in zip(*(column[wrong].tolist() for column in columns), strict=True)]
        self._kept = sorted([*self._kept, *found], key=lambda m: (-m.score, m.number))[: self._most]

    def mistakes(self) -> list[Mistake]:
        """Return them, the most confident first."""
        return list(self._kept)
