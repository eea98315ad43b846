"""The training loss."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

Outputs = Tensor | tuple[Tensor, ...]
"""What a network returns in training: logits, or logits followed by those of its auxiliary classifiers."""


def cross_entropy_sum(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """Cross-entropy summed over a group: logits (n, classes), labels (n,); a scalar.

    With `smoothing` s the target is 1 - s on the label plus s / classes everywhere (Inception-v3 paper, section 7).
    Logits of half precision are computed in fp32.
    """
    wide = logits if logits.dtype.itemsize >= 4 else logits.float()
    return F.cross_entropy(wide, labels, reduction="sum", label_smoothing=smoothing)


def main_logits(outputs: Outputs) -> Tensor:
    """The logits of the main classifier."""
    return outputs if isinstance(outputs, Tensor) else outputs[0]


@dataclass(frozen=True)
class TrainingLoss:
    """Cross-entropy summed over a group, plus `auxiliary_weight` times that of each auxiliary classifier."""

    smoothing: float = 0.0
    auxiliary_weight: float = 0.0

    def __call__(self, outputs: Outputs, labels: Tensor) -> Tensor:
        """The loss of a network's outputs, each (n, classes); a scalar."""
        loss = cross_entropy_sum(main_logits(outputs), labels, self.smoothing)
        for logits in () if isinstance(outputs, Tensor) else outputs[1:]:
            loss = loss + self.auxiliary_weight * cross_entropy_sum(logits, labels, self.smoothing)
        return loss
