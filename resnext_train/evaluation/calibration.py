"""How well the probabilities of predictions agree with how often they are correct. Imports no torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from resnext_train.evaluation.exact_sum import ExactSum
from resnext_train.evaluation.image_results import ImageResults


@dataclass(frozen=True)
class CalibrationBin:
    """The images whose best class has a probability above `above`, up to `up_to`."""

    above: float
    up_to: float
    count: int
    correct: int
    confidence: float | None
    """Their mean probability; None without images, or where it is no number."""


class Calibration:
    """The expected calibration error and the mean negative log-likelihood of an evaluation.

    Sums are exact, so the results are the same whatever the chunks.
    """

    def __init__(self, bins: int = 15) -> None:
        self._edges = np.arange(1, bins + 1) / bins
        self._counts = np.zeros(bins, np.int64)
        self._correct = np.zeros(bins, np.int64)
        self._confidences = [ExactSum() for _ in range(bins)]
        self._losses = ExactSum()

    def add(self, results: ImageResults) -> None:
        self._losses.add(results.losses)
        confidence = results.scores[:, 0]
        # Bin m holds ((m - 1) / M, m / M], as in the paper. NaN, of a network that diverged, comes last.
        bins = np.searchsorted(self._edges[:-1], confidence, side="left")
        for m in np.unique(bins).tolist():
            here = bins == m
            self._counts[m] += int(here.sum())
            self._correct[m] += int((results.ranks[here] == 0).sum())
            self._confidences[m].add(confidence[here])

    @property
    def count(self) -> int:
        """Images so far."""
        return int(self._counts.sum())

    @property
    def error(self) -> float:
        """The expected calibration error, in per cent: Guo et al., arXiv 1706.04599, equation 3.

        NaN without images, or where a probability is.
        """
        if not self.count or not all(np.isfinite(total.value) for total in self._confidences):
            return float("nan")
        gaps = (abs(c - total.exact) for c, total in zip(self._correct.tolist(), self._confidences, strict=True))
        return float(100 * sum(gaps, Fraction()) / self.count)

    @property
    def loss(self) -> float:
        """The mean negative log-likelihood of the labels, in nats; NaN without images."""
        return self._losses.value / self.count if self.count else float("nan")

    def bins(self) -> list[CalibrationBin]:
        """Return the bins, from the lowest probability."""
        found = []
        for m, (count, correct) in enumerate(zip(self._counts.tolist(), self._correct.tolist(), strict=True)):
            total = self._confidences[m].value
            mean = total / count if count and np.isfinite(total) else None
            found.append(CalibrationBin(m / len(self._edges), float(self._edges[m]), count, correct, mean))
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return plain values: the error in per cent, the loss in nats, and the bins."""
        return {"error": self.error, "loss": self.loss, "bins": [asdict(one) for one in self.bins()]}
