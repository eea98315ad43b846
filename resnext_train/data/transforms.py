"""What happens to one image on the CPU: the crop box and the flip in training, resize and centre crop in evaluation.

Colour is changed later, for a whole group at once, on the device: see photometric.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from resnext_train.data.jpeg import Picture

ATTEMPTS = 10
"""Boxes drawn before the fallback, as in the papers' code."""

CROP_DRAWS = 5 * ATTEMPTS
COLOUR_DRAWS = 8
DRAWS = CROP_DRAWS + 1 + COLOUR_DRAWS
"""Uniform numbers that one training image consumes, whatever it looks like."""


class Box(NamedTuple):
    """A rectangle of pixels within an image."""

    top: int
    left: int
    height: int
    width: int


def sample_box(
    draws: NDArray[np.float64],
    height: int,
    width: int,
    area: tuple[float, float],
    aspect: tuple[float, float],
) -> Box:
    """The random crop of the papers' code (fb.resnet.torch, RandomSizedCrop) for an image of `height` × `width`.

    Area share and aspect ratio are uniform, then width and height are swapped with probability 0.5. After ten boxes
    that do not fit: the largest centred square, which is the code's resize of the short side and centre crop.
    `draws` are CROP_DRAWS numbers in [0, 1).
    """
    for a, r, swap, y, x in draws.reshape(ATTEMPTS, 5).tolist():
        target = (area[0] + a * (area[1] - area[0])) * height * width
        ratio = aspect[0] + r * (aspect[1] - aspect[0])
        w, h = _round(math.sqrt(target * ratio)), _round(math.sqrt(target / ratio))
        if swap < 0.5:
            w, h = h, w
        if 0 < w <= width and 0 < h <= height:
            return Box(int(y * (height - h + 1)), int(x * (width - w + 1)), h, w)
    side = min(height, width)
    return Box((height - side) // 2, (width - side) // 2, side, side)


def _round(value: float) -> int:
    return math.floor(value + 0.5)


@dataclass(frozen=True)
class TrainTransform:
    """Random crop resized to `size` × `size`, and a flip with probability `flip`."""

    size: int
    area: tuple[float, float]
    aspect: tuple[float, float]
    interpolation: str
    flip: float

    def __call__(self, picture: Picture, draws: NDArray[np.float64]) -> Tensor:
        """uint8 (3, size, size); of the DRAWS numbers in [0, 1), the last COLOUR_DRAWS are not used here."""
        box = sample_box(draws[:CROP_DRAWS], picture.height, picture.width, self.area, self.aspect)
        image: Tensor = F.resize(
            picture.region(*box),
            [self.size, self.size],
            InterpolationMode(self.interpolation),
            antialias=True,
        )
        return image.flip(-1) if draws[CROP_DRAWS] < self.flip else image


@dataclass(frozen=True)
class EvalTransform:
    """Short side to `resize`, centre crop of `crop`; the pixels of torchvision v2's Resize and CenterCrop."""

    resize: int
    crop: int
    interpolation: str

    def __call__(self, picture: Picture) -> Tensor:
        """uint8 (3, crop, crop)."""
        whole = picture.region(0, 0, picture.height, picture.width)
        resized = F.resize(whole, [self.resize], InterpolationMode(self.interpolation), antialias=True)
        crop: Tensor = F.center_crop(resized, [self.crop, self.crop])
        return crop


def empty_batch(count: int, size: int, shared: bool) -> Tensor:
    """An uninitialised uint8 batch (count, 3, size, size), channels-last, in memory that is `shared` or not."""
    memory = torch.empty(count, size, size, 3, dtype=torch.uint8)
    return (memory.share_memory_() if shared else memory).permute(0, 3, 1, 2)
