"""The random numbers of a training image, by name. Every image gets the same amount, whatever its shape."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from resnext_train.config.fixed_choices import ATTEMPTS
from resnext_train.data.rng import Use, uniforms

BOX_DRAWS = 5 * ATTEMPTS
_COLOR_DRAWS = 8


class CropDraws(NamedTuple):
    """Uniform numbers in [0, 1) for the crop and the flip of one image."""

    box: NDArray[np.float64]
    """(BOX_DRAWS,): position and size of the crop. Each kind of crop uses the first ones, as many as it needs."""
    flip: float


class ColorDraws(NamedTuple):
    """Uniform numbers in [0, 1) for the colours of n images."""

    order: NDArray[np.float64]
    """(n,): the order of brightness, contrast and saturation."""
    factors: NDArray[np.float64]
    """(n, 3): the strength of each of them."""
    radius: NDArray[np.float64]
    """(n, 2): with `angle`, two points that Box-Muller turns into the normal numbers of the lighting noise."""
    angle: NDArray[np.float64]
    """(n, 2)."""


class OperationDraws(NamedTuple):
    """Uniform numbers in [0, 1) for k operations on each of n images, (n, k)."""

    operation: NDArray[np.float64]
    """Which one."""
    done: NDArray[np.float64]
    """Whether it is done."""
    magnitude: NDArray[np.float64]
    """(n, k, 2): how strong it is: by the first number, or by both, from which Box-Muller makes a normal one."""
    sign: NDArray[np.float64]
    resample: NDArray[np.float64]

    @property
    def normal_magnitude(self) -> NDArray[np.float64]:
        """Return normal numbers of mean 0 and standard deviation 1, (n, k)."""
        radius, angle = self.magnitude[..., 0], self.magnitude[..., 1]
        return np.asarray(np.sqrt(-2 * np.log1p(-radius)) * np.cos(2 * np.pi * angle))


NO_DRAWS = CropDraws(np.empty(0), 1.0)
"""Evaluation draws nothing."""


def image_draws(
    seed: int, epoch: int, images: NDArray[np.int64], repetitions: NDArray[np.int64] | None = None
) -> tuple[list[CropDraws], ColorDraws]:
    """Return the draws of each of `images` in `epoch`; of `repetitions` see `uniforms`."""
    numbers = uniforms(seed, epoch, images, BOX_DRAWS + 1 + _COLOR_DRAWS, repetitions)
    box, flip, color = np.split(numbers, [BOX_DRAWS, BOX_DRAWS + 1], axis=1)
    crops = [CropDraws(*draws) for draws in zip(box, flip[:, 0].tolist(), strict=True)]
    return crops, ColorDraws(color[:, 0], color[:, 1:4], color[:, [4, 6]], color[:, [5, 7]])


def operation_draws(
    seed: int, epoch: int, images: NDArray[np.int64], num_ops: int, repetitions: NDArray[np.int64] | None = None
) -> OperationDraws:
    """Return the draws of `num_ops` operations on each of `images` in `epoch`; of `repetitions` see `uniforms`."""
    numbers = uniforms(seed, epoch, images, 6 * num_ops, repetitions, Use.OPERATIONS).reshape(len(images), num_ops, 6)
    return OperationDraws(numbers[..., 0], numbers[..., 1], numbers[..., 2:4], numbers[..., 4], numbers[..., 5])
