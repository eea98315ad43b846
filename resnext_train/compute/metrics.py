"""Counts of an evaluation; divided only when shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


def target_rank(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the rank of the label among logits (n, classes): int64 (n,), 0 for the largest.

    A prediction is correct at k if the rank is below k. Of equal logits the lower index comes first. NaN comes before
    the label, so that a diverged network is never right. Labels are (n,); or (n, L) for several, of which the best
    ranked counts and -1 is none.
    """
    label = best_label(logits, labels)
    target = logits.gather(1, label.unsqueeze(1))
    index = torch.arange(logits.shape[1], device=logits.device)
    behind = (logits < target) | ((logits == target) & (index >= label.unsqueeze(1)))
    return (~behind).sum(1)


def best_label(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the label (n,) with the largest logit of several labels (n, L), of which -1 is none; or `labels` (n,).

    Of equal logits the lower index comes first.
    """
    if labels.ndim == 1:
        return labels
    classes = logits.shape[1]
    ordered = labels.masked_fill(labels < 0, classes).sort(1).values  # argmax takes the first of equal ones
    scores = logits.gather(1, ordered.clamp(max=classes - 1)).masked_fill(ordered == classes, -torch.inf)
    return ordered.gather(1, scores.argmax(1, keepdim=True)).squeeze(1)


def best_classes(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the `count` best classes of scores (n, classes), best first, and their probabilities in fp64, both (n, k).

    With fewer classes, k is their number. Of equal scores the lower index comes first, as in `target_rank`.
    """
    wide = scores.double()
    best = wide.sort(dim=1, descending=True, stable=True).indices[:, :count]
    return best, wide.softmax(1).gather(1, best)


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

    def to_dict(self, also: Mapping[str, EvalCounts] | None = None) -> dict[str, Any]:
        """Return counts and percentages under their names in summary.json and `resnext eval --json`.

        Those of further sets of images, by name, are in `also`.
        """
        return {
            "count": self.count,
            "top1_correct": self.top1_correct,
            "top5_correct": self.top5_correct,
            "top1": self.top1,
            "top5": self.top5,
            "loss": self.loss,
            "unreadable": self.unreadable,
            **({"also": {name: counts.to_dict() for name, counts in also.items()}} if also else {}),
        }
