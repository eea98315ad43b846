"""What trackers are shown beside numbers: training images, first-layer filters, norms of gradients. Rank 0's alone.

Nothing here is computed where no tracker has use for it, and nothing changes what is trained.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from resnext_train.run_dir.run_logger import RunLogger
from resnext_train.run_dir.sink import Pixels
from resnext_train.training.setup import Setup
from resnext_train.training.train_step import TrainStep

IMAGES = 16
"""Most training images in the picture."""

_GAP = 1
"""Pixels between the images of a grid."""

_LARGEST_FILTER = 16
"""Pixels that a filter's side is enlarged to, so that its weights can be told apart."""


class Pictures:
    """Hands pictures and histograms of a run to its log."""

    def __init__(self, setup: Setup, train_step: TrainStep, log: RunLogger) -> None:
        self._train_step, self._log = train_step, log
        data = setup.recipe.data
        self._mean, self._std = np.array(data.mean, np.float32), np.array(data.std, np.float32)

    def begin(self, step: int) -> None:
        """Have a new run's first step keep its images."""
        if step == 0 and self._log.takes_arrays:
            self._train_step.kept_images.keep(IMAGES)

    def log_step(self, step: int) -> None:
        """Log the norms of finished step `step`, on which the device has been waited for, and of step 1 its images."""
        if not self._log.takes_arrays:
            return
        norms = self._train_step.optimizer.norms
        values: NDArray[np.float64] = norms.double().cpu().numpy() if norms is not None else np.zeros(0)
        if len(values := values[np.isfinite(values)]):
            self._log.histogram("train/gradient_norms", values, step)
        if (images := self._train_step.kept_images.take()) is not None:
            self._log.picture("train/images", self._as_seen(images), 1)

    def log_epoch(self, step: int) -> None:
        """Log the filters of the network's first convolution, if that sees colours."""
        if self._log.takes_arrays and (filters := first_filters(self._train_step.model)) is not None:
            self._log.picture("network/first_layer", filters, step)

    def _as_seen(self, images: Tensor) -> Pixels:
        """Return a grid of normalised images (n, 3, S, S) in their own colours."""
        pixels = images.float().cpu().permute(0, 2, 3, 1).numpy() * self._std + self._mean
        return grid(np.clip(np.rint(255 * pixels), 0, 255).astype(np.uint8))


def first_filters(model: nn.Module) -> Pixels | None:
    """Return a grid of the filters of the first convolution over three channels, each from black to white; else None.

    One scale for all three channels of a filter keeps its colours.
    """
    layers = (m for m in model.modules() if isinstance(m, nn.Conv2d))
    first = next(layers, None)
    if first is None or first.weight.shape[1] != 3:
        return None
    weights = first.weight.detach().float().cpu().permute(0, 2, 3, 1).numpy()
    low, high = (f(weights, axis=(1, 2, 3), keepdims=True) for f in (np.min, np.max))
    scaled = (weights - low) / np.maximum(high - low, np.finfo(np.float32).tiny)
    factor = max(1, _LARGEST_FILTER // weights.shape[1])
    pixels = np.nan_to_num(255 * scaled).round().astype(np.uint8)
    return grid(pixels.repeat(factor, axis=1).repeat(factor, axis=2))


def grid(images: Pixels) -> Pixels:
    """Return images (n, h, w, 3) as one picture, row by row, in about as many rows as columns."""
    count, height, width, _ = images.shape
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    picture = np.zeros((rows * (height + _GAP) - _GAP, columns * (width + _GAP) - _GAP, 3), np.uint8)
    for number, image in enumerate(images):
        top, left = (number // columns) * (height + _GAP), (number % columns) * (width + _GAP)
        picture[top : top + height, left : left + width] = image
    return picture
