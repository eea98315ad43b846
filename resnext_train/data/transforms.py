"""What happens to one image on the CPU: the crop box and the flip in training, resize and centre crop in evaluation.

Colour is changed later, for a whole group at once, on the device: see photometric.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple, Protocol

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


class Augmentation(Protocol):
    """How a picture becomes a training crop."""

    @property
    def size(self) -> int:
        """Height and width of the crop in pixels."""

    def __call__(self, picture: Picture, draws: NDArray[np.float64]) -> Tensor:
        """uint8 (3, size, size), a function of the picture and of DRAWS numbers in [0, 1)."""


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
class PadTransform:
    """The image padded by `padding` pixels of the colour `fill`, a random crop of `size` × `size` from it, and a flip.

    An image of another size is first resized, short side to `size`, and centre-cropped. The papers' code pads with
    zeros after the normalisation, and so with the data's mean colour. Pixels are whole levels here until they are
    normalised on the device: with `fill` the mean rounded to levels, the padding is within 0.5 / 255 / std of zero.
    """

    size: int
    padding: int
    fill: tuple[int, int, int]
    interpolation: str
    flip: float

    def __call__(self, picture: Picture, draws: NDArray[np.float64]) -> Tensor:
        """uint8 (3, size, size); the first two of the DRAWS numbers in [0, 1) say where the crop lies."""
        image = EvalTransform(self.size, self.size, self.interpolation)(picture)
        top, left = (int(d * (2 * self.padding + 1)) - self.padding for d in draws[:2].tolist())
        (rows, to_rows), (columns, to_columns) = self._overlap(top), self._overlap(left)
        crop = torch.tensor(self.fill, dtype=torch.uint8).view(3, 1, 1).repeat(1, self.size, self.size)
        crop[:, to_rows, to_columns] = image[:, rows, columns]
        return crop.flip(-1) if draws[CROP_DRAWS] < self.flip else crop

    def _overlap(self, start: int) -> tuple[slice, slice]:
        """What a crop that begins at `start` shares with the image along one side: in the image, and in the crop."""
        first = max(start, 0)
        last = max(first, min(start, 0) + self.size)
        return slice(first, last), slice(first - start, last - start)


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
