"""Images that a program hands over: paths, images of Pillow, tensors, arrays."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from resnext_train.data.decode.image_limits import check_size
from resnext_train.data.decode.jpeg_header import BadImageError
from resnext_train.data.decode.lazy_image import DecodedImage, LazyImage, open_image
from resnext_train.data.decode.pillow_decoder import pixels_of
from resnext_train.data.sources.image_folder import MAX_BYTES
from resnext_train.data.sources.image_source import MEMORY
from resnext_train.errors import InputError
from resnext_train.regular_file import read_regular

GivenImage = str | os.PathLike[str] | Image.Image | Tensor | NDArray[np.uint8]
"""A path; an image of Pillow, whose EXIF orientation is ignored, as a file's is; uint8 RGB as a tensor (3, H, W) or an
array (H, W, 3)."""


def is_given_image(value: object) -> bool:
    """Return whether `value` is one image, and not several."""
    if isinstance(value, (Tensor, np.ndarray)):
        return value.ndim != 4
    return isinstance(value, (str, os.PathLike, Image.Image))


class GivenImages:
    """Images without labels; all labels are 0."""

    storage = MEMORY
    classes: tuple[str, ...] = ("",)

    def __init__(self, images: Sequence[GivenImage], first: int = 0) -> None:
        """`first` is the number of the first one, for messages."""
        self._images, self._first = images, first
        self.labels: NDArray[np.int64] = np.zeros(len(images), np.int64)

    def __len__(self) -> int:
        return len(self._images)

    def name(self, i: int) -> str:
        image = self._images[i]
        return os.fspath(image) if isinstance(image, (str, os.PathLike)) else f"image {self._first + i}"

    def image(self, i: int) -> LazyImage:
        """Open image `i`.

        Raises:
            BadImageError, OSError: it cannot be read.
            InputError: it is none.
        """
        image = self._images[i]
        if isinstance(image, (str, os.PathLike)):
            return open_image(read_regular(os.fspath(image), MAX_BYTES))
        if isinstance(image, Image.Image):
            check_size(image.height, image.width)
            return DecodedImage(_of_pillow(image))
        pixels = self._pixels(i)
        check_size(*pixels.shape[1:])
        return DecodedImage(pixels)

    def _pixels(self, i: int) -> Tensor:
        """Return the pixels (3, H, W) of a tensor or array."""
        image = self._images[i]
        if isinstance(image, Tensor) and image.dtype == torch.uint8 and _is_rgb(tuple(image.shape), 0):
            return image.cpu()
        if isinstance(image, np.ndarray) and image.dtype == np.uint8 and _is_rgb(image.shape, 2):
            return torch.from_numpy(np.array(image, order="C")).permute(
                2, 0, 1
            )  # a copy: torch warns of read-only ones
        shape = f" of shape {tuple(image.shape)} and {image.dtype}" if isinstance(image, (Tensor, np.ndarray)) else ""
        raise InputError(
            f"{self.name(i)} is a {type(image).__name__}{shape}; give a path, an image of Pillow, or uint8 RGB as a "
            "tensor (3, H, W) or an array (H, W, 3)"
        )


def _is_rgb(shape: tuple[int, ...], channels: int) -> bool:
    return len(shape) == 3 and shape[channels] == 3 and min(shape) > 0


def _of_pillow(image: Image.Image) -> Tensor:
    try:
        return pixels_of(image)
    except Exception as error:  # its pixels may not have been read yet, and Pillow's readers raise many kinds
        raise BadImageError(str(error) or type(error).__name__) from error
