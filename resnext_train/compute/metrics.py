"""What is counted: sums and counts, divided only when shown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


def target_rank(logits: Tensor, labels: Tensor) -> Tensor:
    """How many classes come before the label when logits (n, classes) are sorted; labels (n,); int64 (n,).

    Equal logits go by the lower index. The label is correct at k if its rank is below k. A logit that is not a number
    counts as before the label, so that a diverged network is never right.
    """
    target = logits.gather(1, labels.unsqueeze(1))
    index = torch.arange(logits.shape[1], device=logits.device)
    behind = (logits < target) | ((logits == target) & (index >= labels.unsqueeze(1)))
    return (~behind).sum(1)


@dataclass(frozen=True)
class EvalCounts:
    """The result of an evaluation: whole numbers, and the summed cross-entropy."""

    count: int
    top1_correct: int
    top5_correct: int
    loss_sum: float
    unreadable: int = 0
    """Images that could not be read and were left out."""

    @property
    def top1(self) -> float:
        """Top-1 accuracy in per cent."""
        return 100 * self.top1_correct / self.count

    @property
    def top5(self) -> float:
        """Top-5 accuracy in per cent."""
        return 100 * self.top5_correct / self.count

    @property
    def loss(self) -> float:
        """Mean cross-entropy, never smoothed."""
        return self.loss_sum / self.count

    def to_dict(self) -> dict[str, Any]:
        """Counts and percentages under their names in summary.json and in `resnext-eval --json`."""
        return {
            "count": self.count,
            "top1_correct": self.top1_correct,
            "top5_correct": self.top5_correct,
            "top1": self.top1,
            "top5": self.top5,
            "loss": self.loss,
            "unreadable": self.unreadable,
        }
