"""Policies of the section auto_augment: which operations an image gets, and how strong, from its draws.

Order and pixels are those of the sources: after crop, resize and flip, before colours, on whole levels, by Pillow.
"""

from __future__ import annotations

import functools
import itertools
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from resnext_train.data.transforms import image_operations as ops
from resnext_train.data.transforms.image_operations import Operation, Pixels, Resample, Sampling
from resnext_train.data.transforms.random_draws import OperationDraws

BINS = 31
"""Magnitudes of torchvision's policies, from 0 to 30."""

MAX_MAGNITUDE = 10.0
"""Largest magnitude of timm's policy."""


class Choice(NamedTuple):
    """An operation to be done."""

    operation: Operation
    strength: float
    sampling: Sampling


@dataclass(frozen=True)
class AugmentPolicy(ABC):
    """`num_ops` operations on each image, chosen by its draws."""

    num_ops: int

    def __call__(self, images: NDArray[np.uint8], draws: OperationDraws) -> None:
        """Do the operations on `images`, (n, S, S, 3), in place."""
        for image, choices in zip(images, self.choose(draws, images.shape[1]), strict=True):
            pixels: Pixels = image
            for operation, strength, sampling in choices:
                pixels = operation(pixels, strength, sampling)
            if pixels is not image:
                image[:] = pixels

    @abstractmethod
    def choose(self, draws: OperationDraws, size: int) -> list[list[Choice]]:
        """Return the operations of each of n images of `size` × `size`."""


_BLACK = (0, 0, 0)


@dataclass(frozen=True)
class RandAugmentPolicy(AugmentPolicy):
    """torchvision.transforms.RandAugment on Pillow's images: all operations have the one `magnitude`, 0 to 30."""

    magnitude: int
    resample: Resample

    def choose(self, draws: OperationDraws, size: int) -> list[list[Choice]]:
        magnitudes = np.full(draws.operation.shape, self.magnitude)
        return _choose_in(_rand_augment_ranges(size), magnitudes, draws, Sampling(self.resample, _BLACK))


@dataclass(frozen=True)
class TrivialAugmentWidePolicy(AugmentPolicy):
    """torchvision.transforms.TrivialAugmentWide on Pillow's images: a magnitude is drawn for each operation."""

    resample: Resample

    def choose(self, draws: OperationDraws, size: int) -> list[list[Choice]]:
        magnitudes = (draws.magnitude[..., 0] * BINS).astype(np.int64)
        return _choose_in(_wide_ranges(), magnitudes, draws, Sampling(self.resample, _BLACK))


class _Range(NamedTuple):
    """An operation of torchvision's and its strength: `base` plus or, where `signed`, minus one of `magnitudes`."""

    operation: Operation
    magnitudes: tuple[float, ...] = (0.0,) * BINS
    signed: bool = False
    base: float = 0.0


def _choose_in(
    ranges: tuple[_Range, ...], magnitudes: NDArray[np.int64], draws: OperationDraws, sampling: Sampling
) -> list[list[Choice]]:
    """Return the operations of n images by numbers in `ranges` and `magnitudes`, (n, num_ops)."""
    chosen = (draws.operation * len(ranges)).astype(np.int64)

    def choice(number: int, magnitude: int, sign: float) -> Choice:
        operation, strengths, signed, base = ranges[number]
        return Choice(operation, base + (-1 if signed and sign < 0.5 else 1) * strengths[magnitude], sampling)

    rows = zip(chosen.tolist(), magnitudes.tolist(), draws.sign.tolist(), strict=True)
    return [list(map(choice, *row)) for row in rows]


@functools.cache
def _rand_augment_ranges(size: int) -> tuple[_Range, ...]:
    return _ranges(shear=0.3, translate=150.0 / 331.0 * size, rotate=30.0, enhance=0.9, bits=4)


@functools.cache
def _wide_ranges() -> tuple[_Range, ...]:
    return _ranges(shear=0.99, translate=32.0, rotate=135.0, enhance=0.99, bits=6)


def _ranges(shear: float, translate: float, rotate: float, enhance: float, bits: int) -> tuple[_Range, ...]:
    """Return torchvision's operations in its order, up to the given magnitudes; posterize drops up to `bits`."""

    def up_to(largest: float) -> tuple[float, ...]:
        return tuple(torch.linspace(0.0, largest, BINS).tolist())

    shears, enhances = up_to(shear), up_to(enhance)
    distances = tuple(-float(int(pixels)) for pixels in up_to(translate))  # the image moves there, its source away
    kept_bits = tuple(8.0 - round(i * bits / (BINS - 1)) for i in range(BINS))
    return (
        _Range(ops.identity),
        _Range(ops.shear_x, shears, signed=True),
        _Range(ops.shear_y, shears, signed=True),
        _Range(ops.translate_x, distances, signed=True),
        _Range(ops.translate_y, distances, signed=True),
        _Range(ops.rotate, up_to(rotate), signed=True),
        _Range(ops.brightness, enhances, signed=True, base=1.0),
        _Range(ops.color, enhances, signed=True, base=1.0),
        _Range(ops.contrast, enhances, signed=True, base=1.0),
        _Range(ops.sharpness, enhances, signed=True, base=1.0),
        _Range(ops.posterize, kept_bits),
        _Range(ops.solarize, tuple(torch.linspace(255.0, 0.0, BINS).tolist())),
        _Range(ops.autocontrast),
        _Range(ops.equalize),
    )


@dataclass(frozen=True)
class TimmRandAugmentPolicy(AugmentPolicy):
    """timm's RandAugment (rand_augment_transform): each operation has a magnitude around the one given, 0 to 10.

    mmpretrain's `timm_increasing` has the same operations and strengths, but gray levels and resampling are OpenCV's.
    """

    magnitude: float
    magnitude_std: float
    increasing: bool
    probability: float
    resample: Literal["bilinear", "bicubic", "random"]
    fill: tuple[int, int, int]

    def choose(self, draws: OperationDraws, size: int) -> list[list[Choice]]:
        def choice(draw: float, magnitude: float, sign: float, resample: float) -> Choice:
            operation = _TIMM_OPERATIONS[int(draw * len(_TIMM_OPERATIONS))]
            part, factor = magnitude / MAX_MAGNITUDE, -1.0 if sign < 0.5 else 1.0
            either: Resample = "bilinear" if resample < 0.5 else "bicubic"
            sampling = Sampling(either if self.resample == "random" else self.resample, self.fill)
            return Choice(operation, _timm_strength(operation, part, factor, self.increasing, size), sampling)

        magnitudes = (self.magnitude + self.magnitude_std * draws.normal_magnitude).clip(0.0, MAX_MAGNITUDE)
        fields = (draws.operation, magnitudes, draws.sign, draws.resample)
        rows = zip((draws.done < self.probability).tolist(), *(field.tolist() for field in fields), strict=True)
        return [list(itertools.compress(map(choice, *row), done)) for done, *row in rows]


_SHEARS = (ops.shear_x, ops.shear_y)
_TRANSLATIONS = (ops.translate_x, ops.translate_y)
_BLENDS = (ops.color, ops.contrast, ops.brightness, ops.sharpness)
_TIMM_OPERATIONS: tuple[Operation, ...] = (
    *(ops.autocontrast, ops.equalize, ops.invert, ops.rotate, ops.posterize, ops.solarize, ops.solarize_add),
    *(*_BLENDS, *_SHEARS, *_TRANSLATIONS),
)


def _timm_strength(operation: Operation, part: float, sign: float, increasing: bool, size: int) -> float:
    """Return timm's strength of an operation at a magnitude of `part`, 0 to 1, of the largest; `sign` is -1 or 1."""
    if operation is ops.rotate:
        return sign * (part * 30.0)
    if operation in _SHEARS:
        return sign * (part * 0.3)
    if operation in _TRANSLATIONS:
        return sign * (part * 0.45) * size
    if operation in _BLENDS:
        return max(0.1, 1.0 + sign * (part * 0.9)) if increasing else part * 1.8 + 0.1
    if operation is ops.posterize:
        return 4 - int(part * 4) if increasing else int(part * 4)
    if operation is ops.solarize:
        return 256 - int(part * 256) if increasing else int(part * 256)
    if operation is ops.solarize_add:
        return int(part * 110)
    return 0.0
