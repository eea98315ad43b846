"""Crop one image on the CPU: crop box and flip in training, resize and centre crop in evaluation.

Colour is changed later, for a whole micro-batch at once, on the device: see color_transform.py.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from resnext_train.config.fixed_choices import ANTIALIAS, ATTEMPTS
from resnext_train.data.decode.image_limits import check_size
from resnext_train.data.decode.lazy_image import LazyImage
from resnext_train.data.transforms.random_draws import NO_DRAWS, CropDraws


class Box(NamedTuple):
    """A rectangle of pixels within an image."""

    top: int
    left: int
    height: int
    width: int


def sample_box(
    draws: NDArray[np.float64], height: int, width: int, area: tuple[float, float], aspect: tuple[float, float]
) -> Box:
    """Return the random crop of the papers' code (fb.resnet.torch, RandomSizedCrop) for an image of `height` × `width`.

    The fraction of the area and the aspect ratio are uniform; width and height are swapped with probability 0.5. After
    ten boxes that do not fit, take the largest centred square: the code's resize of the short side and centre crop.
    `draws` are BOX_DRAWS numbers in [0, 1).
    """
    for a, r, swap, y, x in draws.reshape(ATTEMPTS, 5).tolist():
        target = (area[0] + a * (area[1] - area[0])) * height * width
        ratio = aspect[0] + r * (aspect[1] - aspect[0])
        w, h = _round(math.sqrt(target * ratio)), _round(math.sqrt(target / ratio))
        if swap < 0.5:
            w, h = h, w
        if 0 < w <= width and 0 < h <= height:
            return _placed(y, x, h, w, height, width)
    side = min(height, width)
    return Box((height - side) // 2, (width - side) // 2, side, side)


def sample_log_box(
    draws: NDArray[np.float64], height: int, width: int, area: tuple[float, float], aspect: tuple[float, float]
) -> Box:
    """Return the random crop of torchvision's RandomResizedCrop for an image of `height` × `width`.

    The fraction of the area and the logarithm of the aspect ratio are uniform. After ten boxes that do not fit, take
    the largest centred box of the allowed aspect that is nearest to the image's: the whole image if its own is allowed.
    `draws` are BOX_DRAWS numbers in [0, 1), used as by `sample_box`; those of its swap are left out.
    """
    low, high = math.log(aspect[0]), math.log(aspect[1])
    for a, r, _, y, x in draws.reshape(ATTEMPTS, 5).tolist():
        target = (area[0] + a * (area[1] - area[0])) * height * width
        ratio = math.exp(low + r * (high - low))
        w, h = round(math.sqrt(target * ratio)), round(math.sqrt(target / ratio))
        if 0 < w <= width and 0 < h <= height:
            return _placed(y, x, h, w, height, width)
    ratio = min(max(width / height, aspect[0]), aspect[1])
    w, h = min(width, max(1, round(height * ratio))), min(height, max(1, round(width / ratio)))
    return Box((height - h) // 2, (width - w) // 2, h, w)


def _round(value: float) -> int:
    return math.floor(value + 0.5)


def _placed(y: float, x: float, h: int, w: int, height: int, width: int) -> Box:
    """Return a box of `h` × `w` in an image of `height` × `width`; `y` and `x` in [0, 1) give its place."""
    return Box(int(y * (height - h + 1)), int(x * (width - w + 1)), h, w)


def sample_scaled_box(
    draws: NDArray[np.float64], height: int, width: int, size: int, short_side: tuple[int, int]
) -> Box:
    """Return the random crop of the ResNet paper (section 3.4) for an image of `height` × `width`, in its own pixels.

    The paper resizes the short side to a whole number drawn uniformly from `short_side` (both ends included), and then
    crops `size` × `size`. In the image itself that is a square of size · min(height, width) / short pixels, rounded.
    `draws` are BOX_DRAWS numbers in [0, 1), of which three are used.
    """
    s, y, x = draws[:3].tolist()
    low, high = short_side
    short = low + int(s * (high - low + 1))
    side = max(1, _round(size * min(height, width) / short))
    return _placed(y, x, side, side, height, width)


class CropTransform(ABC):
    """Two steps, timed separately: decode the pixels that the crop needs, then make the crop."""

    size: int
    """Height and width of the crop in pixels."""

    @abstractmethod
    def read(self, image: LazyImage, draws: CropDraws) -> Tensor:
        """Decode the pixels needed, uint8 (3, H, W); a function of the image and its draws."""

    @abstractmethod
    def crop(self, pixels: Tensor, draws: CropDraws) -> Tensor:
        """Return the crop, uint8 (3, size, size), of what `read` returned for the same draws."""

    def crop_decoded(self, pixels: NDArray[np.uint8], draws: Sequence[CropDraws], out: NDArray[np.uint8]) -> bool:
        """Write the crops of n decoded images (n, H, W, 3) to `out` (n, size, size, 3), if that needs no resizing.

        Return whether it was done. One by one, small images take ten times as long.
        """
        return False

    def __call__(self, image: LazyImage, draws: CropDraws = NO_DRAWS) -> Tensor:
        return self.crop(self.read(image, draws), draws)


@dataclass(frozen=True)
class BoxTransform(CropTransform):
    """A random box resized to `size` × `size`, flipped with probability `flip`."""

    size: int
    interpolation: str
    flip: float

    @abstractmethod
    def box(self, draws: NDArray[np.float64], height: int, width: int) -> Box:
        """Return the box for an image of `height` × `width`, from BOX_DRAWS numbers in [0, 1)."""

    def read(self, image: LazyImage, draws: CropDraws) -> Tensor:
        return image.region(*self.box(draws.box, image.height, image.width))

    def crop(self, pixels: Tensor, draws: CropDraws) -> Tensor:
        # The resize needs contiguous pixels, which a box of a larger image is not, so it is copied anyway. Flipping
        # commutes with resizing and costs nothing as part of that copy.
        flipped = draws.flip < self.flip
        box = (pixels.flip(-1) if flipped else pixels).permute(1, 2, 0).contiguous()
        # The call at the bottom of torchvision's resize for uint8; its checks would add a tenth to the crop's time.
        # Unsqueeze before permuting: with other strides of the new dimension, torch would take a slower path.
        batch = box.unsqueeze(0).permute(0, 3, 1, 2)
        return nn.functional.interpolate(batch, (self.size, self.size), mode=self.interpolation, antialias=ANTIALIAS)[0]


@dataclass(frozen=True)
class AreaTransform(BoxTransform):
    """A crop of random area and aspect ratio, as in the papers' code or, with `log_aspect`, as in torchvision."""

    area: tuple[float, float]
    aspect: tuple[float, float]
    log_aspect: bool = False

    def box(self, draws: NDArray[np.float64], height: int, width: int) -> Box:
        sample = sample_log_box if self.log_aspect else sample_box
        return sample(draws, height, width, self.area, self.aspect)


@dataclass(frozen=True)
class ScaleTransform(BoxTransform):
    """A square crop of random scale, as in the ResNet paper."""

    short_side: tuple[int, int]

    def box(self, draws: NDArray[np.float64], height: int, width: int) -> Box:
        return sample_scaled_box(draws, height, width, self.size, self.short_side)


@dataclass(frozen=True)
class PadTransform(CropTransform):
    """The image padded by `padding` pixels of the colour `fill`, a random crop of `size` × `size` from it, and a flip.

    An image of another size is first resized, short side to `size`, and centre-cropped. The papers' code pads with
    zeros after the normalisation, that is with the data's mean colour. Here pixels are whole levels until they are
    normalised on the device: with the mean rounded to levels as `fill`, the padding is within 0.5 / 255 / std of zero.
    """

    size: int
    padding: int
    fill: tuple[int, int, int]
    interpolation: str
    flip: float

    def read(self, image: LazyImage, draws: CropDraws) -> Tensor:
        return self._resized.read(image, draws)

    def crop(self, pixels: Tensor, draws: CropDraws) -> Tensor:
        image = self._resized.crop(pixels, draws)
        top, left = (offset - self.padding for offset in self._offsets(draws))
        (rows, to_rows), (columns, to_columns) = self._overlap(top), self._overlap(left)
        crop = torch.tensor(self.fill, dtype=torch.uint8).view(3, 1, 1).repeat(1, self.size, self.size)
        crop[:, to_rows, to_columns] = image[:, rows, columns]
        return crop.flip(-1) if draws.flip < self.flip else crop

    def crop_decoded(self, pixels: NDArray[np.uint8], draws: Sequence[CropDraws], out: NDArray[np.uint8]) -> bool:
        if pixels.shape[1:3] != (self.size, self.size):
            return False
        within = slice(self.padding, self.padding + self.size)
        side = self.size + 2 * self.padding
        padded = np.empty((len(pixels), side, side, 3), np.uint8)
        padded.reshape(len(pixels), side, -1)[:] = np.tile(np.array(self.fill, np.uint8), side)  # faster than by pixel
        padded[:, within, within] = pixels
        for crop, image, drawn in zip(out, padded, draws, strict=True):
            top, left = self._offsets(drawn)
            box = image[top : top + self.size, left : left + self.size]
            crop[:] = box[:, ::-1] if drawn.flip < self.flip else box
        return True

    def _offsets(self, draws: CropDraws) -> tuple[int, int]:
        """Return the first row and column of the crop in the padded image."""
        top, left = (int(d * (2 * self.padding + 1)) for d in draws.box[:2].tolist())
        return top, left

    @property
    def _resized(self) -> EvalTransform:
        return EvalTransform(self.size, self.size, self.interpolation)

    def _overlap(self, start: int) -> tuple[slice, slice]:
        """Return the overlap of the image and a crop from `start` on, along one side: in the image, in the crop."""
        first = max(start, 0)
        last = max(first, min(start, 0) + self.size)
        return slice(first, last), slice(first - start, last - start)


@dataclass(frozen=True)
class EvalTransform(CropTransform):
    """Short side to `resize`, centre crop of `crop`; the pixels of torchvision v2's Resize and CenterCrop."""

    resize: int
    size: int
    interpolation: str

    def read(self, image: LazyImage, draws: CropDraws) -> Tensor:
        """Decode the whole image: resizing a part alone would change the pixels at the part's edges.

        Raises:
            BadImageError: an image that would have more than MAX_PIXELS when resized.
        """
        sides = sorted((image.height, image.width))
        check_size(self.resize, self.resize * sides[1] // sides[0])
        return _whole(image)

    def crop_decoded(self, pixels: NDArray[np.uint8], draws: Sequence[CropDraws], out: NDArray[np.uint8]) -> bool:
        if {*pixels.shape[1:3], self.resize} != {self.size}:
            return False
        out[:] = pixels
        return True

    def crop(self, pixels: Tensor, draws: CropDraws) -> Tensor:
        resized = F.resize(pixels, [self.resize], InterpolationMode(self.interpolation), antialias=ANTIALIAS)
        crop: Tensor = F.center_crop(resized, [self.size, self.size])
        return crop


def _whole(image: LazyImage) -> Tensor:
    return image.region(0, 0, image.height, image.width)
