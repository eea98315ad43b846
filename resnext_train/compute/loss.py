"""The training loss."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

Outputs = Tensor | tuple[Tensor, ...]
"""Outputs of a network in training: logits, or logits and those of its auxiliary classifiers."""


def cross_entropy_sum(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """Return the cross-entropy of logits (n, classes) and labels (n,), summed over the batch: a scalar.

    With `smoothing` s the target is 1 - s on the label plus s / classes everywhere (Inception-v3 paper, section 7).
    Logits in half precision are converted to fp32.
    """
    wide = logits if logits.dtype.itemsize >= 4 else logits.float()
    return F.cross_entropy(wide, labels, reduction="sum", label_smoothing=smoothing)


def cross_entropy_each(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the cross-entropy of logits (n, classes) and labels (n,) of each image: (n,), in fp32 at least."""
    wide = logits if logits.dtype.itemsize >= 4 else logits.float()
    return F.cross_entropy(wide, labels, reduction="none")


def main_logits(outputs: Outputs) -> Tensor:
    return outputs if isinstance(outputs, Tensor) else outputs[0]


@dataclass(frozen=True)
class TrainingLoss:
    """Cross-entropy summed over a micro-batch, plus `auxiliary_weight` times that of each auxiliary classifier."""

    smoothing: float = 0.0
    auxiliary_weight: float = 0.0

    def __call__(self, outputs: Outputs, labels: Tensor) -> Tensor:
        loss = cross_entropy_sum(main_logits(outputs), labels, self.smoothing)
        for logits in () if isinstance(outputs, Tensor) else outputs[1:]:
            loss = loss + self.auxiliary_weight * cross_entropy_sum(logits, labels, self.smoothing)
        return loss
