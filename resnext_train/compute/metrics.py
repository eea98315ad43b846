"""Counts of an evaluation; divided only when shown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


def target_rank(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the rank of the label among logits (n, classes): int64 (n,), 0 for the largest.

    A prediction is correct at k if the rank is below k. Of equal logits the lower index comes first. NaN comes before
    the label, so that a diverged network is never right.
    """
    target = logits.gather(1, labels.unsqueeze(1))
    index = torch.arange(logits.shape[1], device=logits.device)
    behind = (logits < target) | ((logits == target) & (index >= labels.unsqueeze(1)))
    return (~behind).sum(1)


@dataclass(frozen=True)
class EvalCounts:
    """The result of an evaluation: integer counts and the summed cross-entropy; accuracies are in per cent."""

    count: int
    top1_correct: int
    top5_correct: int
    loss_sum: float
    unreadable: int = 0
    """Images that could not be read, and do not count."""

    @property
    def top1(self) -> float:
        return 100 * self.top1_correct / self.count

    @property
    def top5(self) -> float:
        return 100 * self.top5_correct / self.count

    @property
    def loss(self) -> float:
        """Mean cross-entropy, never smoothed."""
        return self.loss_sum / self.count

    def to_dict(self) -> dict[str, Any]:
        """Return counts and percentages under their names in summary.json and `resnext eval --json`."""
        return {
            "count": self.count,
            "top1_correct": self.top1_correct,
            "top5_correct": self.top5_correct,
            "top1": self.top1,
            "top5": self.top5,
            "loss": self.loss,
            "unreadable": self.unreadable,
        }
