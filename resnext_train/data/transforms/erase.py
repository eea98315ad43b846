"""Random erasing (arXiv 1708.04896): boxes are drawn in the loader processes and overwritten on the device."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from resnext_train.config.fixed_choices import ATTEMPTS
from resnext_train.data.rng import Use, uniforms

_OF_IMAGE, _OF_BOX = 2, 2 * ATTEMPTS + 2
"""Numbers drawn for an image: whether and how many boxes; and for each box: area and aspect of ten attempts, place."""


@dataclass(frozen=True)
class RandomErasing:
    """The erase section: the law of timm's RandomErasing and, with one box at most, of torchvision's.

    With `probability`, an image gets 1 to `count` boxes, all numbers alike. The area of each is uniform in `area` times
    the crop's, divided by the number of boxes, and its aspect ratio, height to width, is log-uniform in `aspect`. A
    box has rounded sides, both smaller than the crop's, and any place in it; after ten that are too large there is
    none. The two sources differ in their default ranges, and torchvision rounds the ranges to fp32.
    """

    probability: float = 0.0
    value: Literal["constant", "pixel"] = "constant"
    count: int = 1
    area: tuple[float, float] = (0.02, 1 / 3)
    aspect: tuple[float, float] = (0.3, 1 / 0.3)

    def draw_boxes(
        self, seed: int, epoch: int, images: NDArray[np.int64], repetitions: NDArray[np.int64] | None, size: int
    ) -> Tensor | None:
        """Return the boxes of n images in crops of `size` × `size`, int32 (n, count, 4): top, left, height, width.

        Those that an image does not have are zeros. Without any in the recipe, return None.
        """
        if not self.probability:
            return None
        draws = uniforms(seed, epoch, images, _OF_IMAGE + self.count * _OF_BOX, repetitions, Use.ERASING)
        return torch.from_numpy(self.boxes(draws, size))

    def boxes(self, draws: NDArray[np.float64], size: int) -> NDArray[np.int32]:
        """Return the boxes for the `draws` of n images, as `draw_boxes` does."""
        number = np.where(draws[:, :1] < self.probability, 1 + (draws[:, 1:2] * self.count).astype(np.int64), 0)
        of_box = draws[:, _OF_IMAGE:].reshape(len(draws), self.count, _OF_BOX)
        area, aspect = of_box[..., :ATTEMPTS], of_box[..., ATTEMPTS : 2 * ATTEMPTS]
        target = (self.area[0] + area * (self.area[1] - self.area[0])) * size**2 / np.maximum(number, 1)[..., None]
        low, high = math.log(self.aspect[0]), math.log(self.aspect[1])
        ratio = np.exp(low + aspect * (high - low))
        sides = np.rint(np.sqrt(np.stack((target * ratio, target / ratio), axis=-1)))
        fits = (sides < size).all(-1)
        first = fits.argmax(-1)[..., None, None]
        chosen = np.take_along_axis(sides, first, axis=-2)[..., 0, :]
        place = np.floor(of_box[..., 2 * ATTEMPTS :] * (size - chosen + 1))
        used = fits.any(-1) & (np.arange(self.count) < number)
        return np.where(used[..., None], np.concatenate((place, chosen), axis=-1), 0).astype(np.int32)

    def __call__(self, pixels: Tensor, boxes: Tensor) -> Tensor:
        """Overwrite the `boxes` (n, count, 4) of normalised images (n, 3, S, S), in place, and return the images.

        Noise is drawn for all pixels by torch's generator of the device, so that the host needs to know no box.
        """
        n, _, _, size = pixels.shape
        mask = erased(boxes, size)
        if self.value == "constant":
            return pixels.masked_fill_(mask, 0.0)
        # Drawn in one order and precision for all memory layouts and precisions of the images.
        noise = torch.randn(n, size, size, 3, dtype=torch.float32, device=pixels.device).permute(0, 3, 1, 2)
        return pixels.copy_(torch.where(mask, noise.to(pixels.dtype), pixels))


def erased(boxes: Tensor, size: int) -> Tensor:
    """Return which pixels of n images the `boxes` (n, count, 4) cover, bool (n, 1, size, size)."""
    places = torch.arange(size, dtype=boxes.dtype, device=boxes.device)
    first, sides = boxes[..., None].split(2, dim=2)
    rows, columns = ((places >= first) & (places < first + sides)).unbind(2)
    covered: Tensor = rows[:, :1, :, None] & columns[:, :1, None]
    for i in range(1, boxes.shape[1]):
        covered |= rows[:, i : i + 1, :, None] & columns[:, i : i + 1, None]
    return covered
