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
        found = torch.cat([self._group_logits(batch.images(g), views, pass_pixels, precision) for g in batch.groups])
        if len(batch.groups) == 1:  # views of one shape are in order: those of an image one after another
            return _by_image(found, len(batch.numbers))
        places = [row * views.loaded + view for g in batch.groups for row, view in zip(g.rows, g.views, strict=True)]
        ordered = torch.empty_like(found)
        ordered[torch.tensor(places, device=found.device)] = found
        return _by_image(ordered, len(batch.numbers))

    def _group_logits(self, images: Tensor, views: EvalViews, pass_pixels: int, precision: Precision) -> Tensor:
        """Return the logits (k, 1 or 2, classes) of views of one shape, and of their mirror images behind them."""
        dtype = precision.compute_dtype(torch.float32)
        size = max(1, pass_pixels // (images.shape[2] * images.shape[3]))
        found: list[Tensor] = []
        for some in images.split(size):
            pixels = self.normalise(some, None, dtype)  # outside autocast, which would compute in fewer bits
            shown = [pixels, pixels.flip(-1)] if views.flip else [pixels]
            with precision.autocast():
                found.append(torch.stack([self.model(seen) for seen in shown], 1))
        logits = torch.cat(found)
        return logits if self.outputs is None else logits[:, :, self.outputs]


def _by_image(logits: Tensor, images: int) -> Tensor:
    """Return (images, views, classes) of logits (images · loaded views, 1 or 2, classes), mirror images last."""
    return logits.view(images, -1, *logits.shape[1:]).transpose(1, 2).flatten(1, 2)


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
