"""What an evaluation finds out of each image. Imports no torch."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray


class ImageResults(NamedTuple):
    """The results of n consecutive images in the data's order; those that could not be read are left out."""

    numbers: NDArray[np.int64]
    """Which images of the source, (n,), ascending."""
    labels: NDArray[np.int64]
    """The class of each, (n,), by number among the classes that may be predicted."""
    ranks: NDArray[np.int64]
    """Rank of the label among all classes, (n,); 0: it is predicted."""
    losses: NDArray[np.float64]
    """Negative log-likelihood of the label, (n,), in nats."""
    classes: NDArray[np.int64]
    """The best classes, (n, k), best first; k is 5, or the number of classes if that is smaller."""
    scores: NDArray[np.float64]
    """Their probabilities, (n, k)."""


class ResultSink(Protocol):
    """Takes the results of all images of an evaluation, on rank 0 alone: a file, a table, a measure."""

    def add(self, results: ImageResults) -> None:
        """Take the results of the images that follow."""
