"""A network to evaluate, alone or in an ensemble: the scores of its classes for all views of some images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from resnext_train.compute.precision import Precision
from resnext_train.data.eval_batches import EvalBatch
from resnext_train.data.transforms.color_transform import ColorTransform
from resnext_train.data.transforms.eval_views import EvalViews

Average = Literal["softmax", "logits"]
"""What is averaged over views, and over networks."""


@dataclass(frozen=True)
class Member:
    """A network, how its images are normalised, and which of its outputs are classes."""

    model: nn.Module
    """In evaluation mode, on the device."""
    normalise: ColorTransform
    outputs: Tensor | None = None
    """Its output for each class, int64 (classes,) on the device; None: all outputs are classes, in their order.

    Predictions are made among these: the softmax knows no other class, as in the 1K-way evaluation of ImageNet-5K
    (ResNeXt paper, Table 6)."""

    def view_logits(self, batch: EvalBatch, views: EvalViews, pass_pixels: int, precision: Precision) -> Tensor:
        """Return the logits (n, views, classes) of a batch, those of mirror images behind those of the loaded views.

        A forward pass takes views of one shape, of at most `pass_pixels` pixels together unless one alone has more.
        """
        dtype = precision.compute_dtype(torch.float32)
        mirrors = 2 if views.flip else 1
        logits: Tensor | None = None
        for group in batch.groups:
            images = batch.images(group)
            size = max(1, pass_pixels // (group.height * group.width))
            for start in range(0, len(images), size):
                # Normalise outside autocast, which would compute in fewer bits.
                pixels = self.normalise(images[start : start + size], None, dtype)
                rows, numbers = group.rows[start : start + size], group.views[start : start + size]
                for mirror in range(mirrors):
                    shown = pixels.flip(-1) if mirror else pixels
                    with precision.autocast():
                        scores: Tensor = self.model(shown)
                    if self.outputs is not None:
                        scores = scores[:, self.outputs]
                    if logits is None:
                        if len(rows) == len(batch.numbers) and views.loaded == mirrors == 1:
                            return scores.unsqueeze(1)  # one group of one view: the usual case, without a copy
                        shape = (len(batch.numbers), mirrors * views.loaded, scores.shape[1])
                        logits = torch.empty(shape, dtype=scores.dtype, device=scores.device)
                    logits[rows, [mirror * views.loaded + number for number in numbers]] = scores
        assert logits is not None, "the batch is empty"
        return logits


def average_scores(logits: Tensor, average: Average) -> Tensor:
    """Return scores (n, classes) from logits (n, m, classes) of m views or networks; their softmax is the result's.

    softmax: the logarithm of the mean probability, as the ResNet paper's authors average; logits: the mean logit, as
    fb.resnet.torch does. In fp64, unless there is nothing to average.
    """
    count = logits.shape[1]
    if count == 1:
        return logits[:, 0]
    if average == "logits":
        return logits.double().mean(1)
    return logits.double().log_softmax(2).logsumexp(1)
