"""Views of an image in evaluation: crops of it, or all of it, at one or several sizes (ResNet paper, section 3.4)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from resnext_train.data.decode.image_limits import check_size
from resnext_train.data.decode.lazy_image import LazyImage

_USUAL_ASPECT = 4 / 3
"""Of most photographs, by which memory is reserved; a longer image takes more."""


@dataclass(frozen=True)
class EvalViews:
    """Which pixels of an image the network sees. All views come from one decode of the whole image.

    The resize is antialiased; its pixels, and those of the crops, are those of torchvision v2.
    """

    sides: tuple[int, ...]
    """Short sides in pixels to which the image is resized."""
    crop: int | None
    """Height and width of a crop; None: the whole image."""
    ten: bool
    """Whether there are ten crops of each size: of centre and corners, of the image and of its mirror image."""
    flip: bool
    """Whether each view counts twice, the second time as its mirror image, which the device makes."""
    interpolation: str

    @property
    def loaded(self) -> int:
        """Views of an image before mirror images."""
        return len(self.sides) * (10 if self.ten else 1)

    @property
    def usual_pixels(self) -> int:
        """Pixels of all loaded views of an image of the usual shape."""
        if self.crop is not None:
            return self.loaded * self.crop**2
        return sum(side * round(side * _USUAL_ASPECT) for side in self.sides)

    def check(self, height: int, width: int) -> None:
        """Check that an image of this size can be resized.

        Raises:
            BadImageError: it would have more than MAX_PIXELS.
        """
        short, long = sorted((height, width))
        check_size(max(self.sides), max(self.sides) * long // short)

    def of(self, pixels: Tensor) -> list[Tensor]:
        """Return the views of uint8 `pixels` (3, H, W), each uint8 (3, h, w), by side."""
        views: list[Tensor] = []
        for side in self.sides:
            resized = F.resize(pixels, [side], InterpolationMode(self.interpolation), antialias=True)
            if self.crop is None:
                views.append(resized)
            elif self.ten:
                # Not crops and then their mirror images: where the margins are odd, the centre's would be another.
                views += F.ten_crop(resized, [self.crop, self.crop])
            else:
                views.append(F.center_crop(resized, [self.crop, self.crop]))
        return views

    def are_pixels(self, pixels: NDArray[np.uint8]) -> bool:
        """Return whether decoded images (n, H, W, 3) are their own and only views."""
        return self.loaded == 1 and {*pixels.shape[1:3], self.sides[0]} == {self.crop}


def read_whole(image: LazyImage) -> Tensor:
    """Decode all pixels, uint8 (3, H, W): resizing a part alone would change the pixels at the part's edges.

    Raises:
        BadImageError: they cannot be decoded.
    """
    return image.region(0, 0, image.height, image.width)
