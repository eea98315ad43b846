"""Mix the images of a micro-batch in pairs, on the device: mixup (arXiv 1710.09412) and CutMix (arXiv 1905.04899).

Each image is mixed with the one before it, the first with the last, by one ratio for the whole micro-batch, as in
torchvision.transforms.v2. The host draws the ratio as a function of (seed, step, micro-batch), so that it depends on
neither the number of ranks nor restarts, and nothing waits for the device.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from resnext_train.data.rng import mixing_uniforms

Box = tuple[slice, slice]
"""Rows and columns."""


@dataclass(frozen=True)
class Mix:
    """How one micro-batch is mixed."""

    weight: float
    """Part of an image itself; the rest is its partner's."""
    box: Box | None = None
    """Where the partner's pixels are, and nowhere else (CutMix); None: both images are blended (mixup)."""

    def images(self, pixels: Tensor) -> Tensor:
        """Return the mix of (n, 3, H, W), which may be overwritten. Half precision is rounded once."""
        if self.box is not None:
            rows, columns = self.box
            part = pixels[:, :, rows, columns]
            part.copy_(part.roll(1, 0))
            return pixels
        mixed = torch.empty_like(pixels)
        # In two pieces, which spares a copy of all partners. lerp computes in fp32 at least.
        torch.lerp(pixels[:-1], pixels[1:], self.weight, out=mixed[1:])
        torch.lerp(pixels[-1:], pixels[:1], self.weight, out=mixed[:1])
        return mixed

    def partners(self, labels: Tensor) -> Tensor:
        """Return the label of each image's partner, (n,)."""
        return labels.roll(1, 0)


@dataclass(frozen=True)
class Mixing:
    """Strengths of mixup and CutMix (the mix section), of which one is above 0 at least, and the run's seed."""

    mixup: float
    cutmix: float
    switch: float
    seed: int = 0

    def draw(self, step: int, micro_batch: int, height: int, width: int) -> Mix:
        """Return how a micro-batch of images of that size is mixed."""
        kind, radius, turn, row, column = mixing_uniforms(self.seed, step, micro_batch, 5)
        if not (self.cutmix and (kind < self.switch or not self.mixup)):
            return Mix(symmetric_beta(self.mixup, radius, turn))
        box = cut_box(symmetric_beta(self.cutmix, radius, turn), int(row * height), int(column * width), height, width)
        rows, columns = box
        return Mix(1 - (rows.stop - rows.start) * (columns.stop - columns.start) / (height * width), box)


def symmetric_beta(alpha: float, radius: float, turn: float) -> float:
    """Return a number from Beta(alpha, alpha), made of two uniform ones in [0, 1).

    Exact for every alpha: the polar method gives Student's t with 2 alpha degrees of freedom, whose
    t / sqrt(2 alpha + t²) lies between -1 and 1 as such a Beta does between 0 and 1 (Bailey, "Polar generation of
    random variates with the t-distribution", 1994; Devroye, "Random variate generation in one line of code", 1996).
    """
    near, across = (1 - radius) ** (1 / alpha), math.cos(2 * math.pi * turn)
    square = (1 - near) * across**2  # t² / (2 alpha) is square / near
    return 0.5 + math.copysign(0.5 * math.sqrt(square / (square + near)), across)


def cut_box(weight: float, row: int, column: int, height: int, width: int) -> Box:
    """Return the box around a pixel with a part 1 - weight of the image's area, cut off at the image's edges.

    As torchvision.transforms.v2.CutMix: half its sides are rounded down to whole pixels.
    """
    half = 0.5 * math.sqrt(1 - weight)
    high, wide = int(half * height), int(half * width)
    rows = slice(max(row - high, 0), min(row + high, height))
    return rows, slice(max(column - wide, 0), min(column + wide, width))
