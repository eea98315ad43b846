"""What happens to one image on the CPU: the crop box and the flip in training, resize and centre crop in evaluation.

Colour is changed later, for a whole group at once, on the device: see photometric.py.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from resnext_train.data.decode.lazy_image import LazyImage, check_size
from resnext_train.data.transforms.random_draws import ATTEMPTS, NO_DRAWS, CropDraws


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
    `draws` are BOX_DRAWS numbers in [0, 1).
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


def sample_scaled_box(
    draws: NDArray[np.float64], height: int, width: int, size: int, short_side: tuple[int, int]
) -> Box:
    """The random crop of the ResNet paper (section 3.4) for an image of `height` × `width`, in its own pixels.

    The image is resized, short side to a whole number drawn uniformly from `short_side` (both included), and a
    `size` × `size` crop of it is drawn. That crop is a square of size · min(height, width) / short pixels here,
    rounded. `draws` are BOX_DRAWS numbers in [0, 1), of which three are used.
    """
    s, y, x = draws[:3].tolist()
    low, high = short_side
    short = low + int(s * (high - low + 1))
    side = max(1, _round(size * min(height, width) / short))
    return Box(int(y * (height - side + 1)), int(x * (width - side + 1)), side, side)


class CropTransform(ABC):
    """How a picture becomes a crop: first the pixels that the crop is made of are decoded, then the crop is made."""

    size: int
    """Height and width of the crop in pixels."""

    @abstractmethod
    def read(self, image: LazyImage, draws: CropDraws) -> Tensor:
        """The pixels needed, uint8 (3, H, W); a function of the image and its draws."""

    @abstractmethod
    def crop(self, pixels: Tensor, draws: CropDraws) -> Tensor:
        """The crop, uint8 (3, size, size), of what `read` returned for the same draws."""

    def __call__(self, image: LazyImage, draws: CropDraws = NO_DRAWS) -> Tensor:
        """Both; evaluation needs no draws."""
        return self.crop(self.read(image, draws), draws)


@dataclass(frozen=True)
class BoxTransform(CropTransform):
    """A random box resized to `size` × `size`, and a flip with probability `flip`."""

    size: int
    interpolation: str
    flip: float

    @abstractmethod
    def box(self, draws: NDArray[np.float64], height: int, width: int) -> Box:
        """The box for an image of `height` × `width`, from BOX_DRAWS numbers in [0, 1)."""

    def read(self, image: LazyImage, draws: CropDraws) -> Tensor:
        """The box alone."""
        return image.region(*self.box(draws.box, image.height, image.width))

    def crop(self, pixels: Tensor, draws: CropDraws) -> Tensor:
        """Flipped or not, then resized, which commute.

        The resize wants its pixels in one piece, which the box of a larger image is not. So it has to be copied in
        any case, and the flip costs nothing if it is done by that copy.
        """
        flipped = draws.flip < self.flip
        box = (pixels.flip(-1) if flipped else pixels).permute(1, 2, 0).contiguous()
        # What torchvision's resize comes to for uint8; its checks would take as long as a tenth of the crop. The new
        # dimension must come before the permutation: with other strides of it, torch would choose a slower way.
        batch = box.unsqueeze(0).permute(0, 3, 1, 2)
        return nn.functional.interpolate(batch, (self.size, self.size), mode=self.interpolation, antialias=True)[0]


@dataclass(frozen=True)
class AreaTransform(BoxTransform):
    """A crop of random area and aspect ratio, as in the papers' code."""

    area: tuple[float, float]
    aspect: tuple[float, float]

    def box(self, draws: NDArray[np.float64], height: int, width: int) -> Box:
        """See `sample_box`."""
        return sample_box(draws, height, width, self.area, self.aspect)


@dataclass(frozen=True)
class ScaleTransform(BoxTransform):
    """A square crop of random scale, as in the ResNet paper."""

    short_side: tuple[int, int]

    def box(self, draws: NDArray[np.float64], height: int, width: int) -> Box:
        """See `sample_scaled_box`."""
        return sample_scaled_box(draws, height, width, self.size, self.short_side)


@dataclass(frozen=True)
class PadTransform(CropTransform):
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

    def read(self, image: LazyImage, draws: CropDraws) -> Tensor:
        """The whole image."""
        return self._resized.read(image, draws)

    def crop(self, pixels: Tensor, draws: CropDraws) -> Tensor:
        """The first two draws say where the crop lies."""
        image = self._resized.crop(pixels, draws)
        top, left = (int(d * (2 * self.padding + 1)) - self.padding for d in draws.box[:2].tolist())
        (rows, to_rows), (columns, to_columns) = self._overlap(top), self._overlap(left)
        crop = torch.tensor(self.fill, dtype=torch.uint8).view(3, 1, 1).repeat(1, self.size, self.size)
        crop[:, to_rows, to_columns] = image[:, rows, columns]
        return crop.flip(-1) if draws.flip < self.flip else crop

    @property
    def _resized(self) -> EvalTransform:
        """The image without padding."""
        return EvalTransform(self.size, self.size, self.interpolation)

    def _overlap(self, start: int) -> tuple[slice, slice]:
        """What a crop that begins at `start` shares with the image along one side: in the image, and in the crop."""
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
        """The whole image: the resize of a part alone has other pixels at the part's edges.

        Raises:
            BadImageError: it is so long and thin that it would be of more than MAX_PIXELS when resized.
        """
        sides = sorted((image.height, image.width))
        check_size(self.resize, self.resize * sides[1] // sides[0])
        return _whole(image)

    def crop(self, pixels: Tensor, draws: CropDraws) -> Tensor:
        """uint8 (3, size, size), in the same way for all draws."""
        resized = F.resize(pixels, [self.resize], InterpolationMode(self.interpolation), antialias=True)
        crop: Tensor = F.center_crop(resized, [self.size, self.size])
        return crop


def _whole(image: LazyImage) -> Tensor:
    return image.region(0, 0, image.height, image.width)
