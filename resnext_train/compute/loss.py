"""The training loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
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


def binary_cross_entropy_sum(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """Return the binary cross-entropy of logits (n, classes) and labels (n,): a scalar.

    It is the mean over the classes, each by itself, summed over the images. The target of a class is as in
    `cross_entropy_sum`: with smoothing s, 1 - s + s / classes for the label's, and s / classes for all others
    (arXiv 2110.00476; timm.loss.BinaryCrossEntropy). Logits in half precision are converted to fp32.
    """
    wide = logits if logits.dtype.itemsize >= 4 else logits.float()
    classes = wide.shape[1]
    # log(1 + exp(x)) - t x is linear in the target t, so the few places where t is not s / classes are picked out.
    loss = F.nll_loss(wide, labels, reduction="sum") * (1 - smoothing) - F.logsigmoid(-wide).sum()
    if smoothing:
        loss = loss - wide.sum() * (smoothing / classes)
    return loss / classes


def cross_entropy_each(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the cross-entropy of logits (n, classes) and labels (n,) of each image: (n,), in fp32 at least."""
    wide = logits if logits.dtype.itemsize >= 4 else logits.float()
    return F.cross_entropy(wide, labels, reduction="none")


def main_logits(outputs: Outputs) -> Tensor:
    return outputs if isinstance(outputs, Tensor) else outputs[0]


@dataclass(frozen=True)
class Targets:
    """What a micro-batch is trained towards: `labels` (n,), or a mix of two labels for each image.

    Both losses are linear in the target, so that of a mix is the weighted sum of the losses of its labels.
    """

    labels: Tensor
    others: Tensor | None = None
    """The second label of each image, (n,); None: there is none."""
    weight: float = 1.0
    """Part of `labels` in the mix; the rest is that of `others`."""

    @property
    def heavier(self) -> Tensor:
        """Return the label of each image with the larger part, (n,)."""
        return self.labels if self.others is None or self.weight >= 0.5 else self.others


def binary_cross_entropy_of_present(logits: Tensor, targets: Targets, smoothing: float, threshold: float) -> Tensor:
    """Return the binary cross-entropy of logits (n, classes), mean over the classes, summed over images: a scalar.

    A class is present, that is its target is 1, where its part in the mix is over `threshold`, with `smoothing` taken
    off before (timm.loss.BinaryCrossEntropy with target_threshold).
    """
    wide = logits if logits.dtype.itemsize >= 4 else logits.float()
    classes = wide.shape[1]
    least = smoothing / classes
    loss = -F.logsigmoid(-wide).sum()
    if 1 - smoothing + least <= threshold:
        return loss / classes
    if targets.others is None:
        return (loss + F.nll_loss(wide, targets.labels, reduction="sum")) / classes
    parts = [part * (1 - smoothing) + least > threshold for part in (targets.weight, 1 - targets.weight)]
    first, second = (wide.gather(1, y.unsqueeze(1)).squeeze(1) for y in (targets.labels, targets.others))
    # Two labels of one class are one target, and all of the mix.
    present = torch.where(targets.labels == targets.others, first, parts[0] * first + parts[1] * second)
    return (loss - present.sum()) / classes


@dataclass(frozen=True)
class TrainingLoss:
    """Loss summed over a micro-batch, plus `auxiliary_weight` times that of each auxiliary classifier."""

    smoothing: float = 0.0
    auxiliary_weight: float = 0.0
    kind: Literal["cross_entropy", "bce"] = "cross_entropy"
    threshold: float | None = None
    """Of BCE: targets above it count as 1, all others as 0; None: as they are."""

    def __call__(self, outputs: Outputs, targets: Targets) -> Tensor:
        loss = self._of_logits(main_logits(outputs), targets)
        for logits in () if isinstance(outputs, Tensor) else outputs[1:]:
            loss = loss + self.auxiliary_weight * self._of_logits(logits, targets)
        return loss

    def _of_logits(self, logits: Tensor, targets: Targets) -> Tensor:
        if self.kind == "bce" and self.threshold is not None:
            return binary_cross_entropy_of_present(logits, targets, self.smoothing, self.threshold)
        of_labels = _LOSSES[self.kind]
        loss = of_labels(logits, targets.labels, self.smoothing)
        if targets.others is None:
            return loss
        return targets.weight * loss + (1 - targets.weight) * of_labels(logits, targets.others, self.smoothing)


_LOSSES = {"cross_entropy": cross_entropy_sum, "bce": binary_cross_entropy_sum}
