"""Image bytes to pixels."""

from __future__ import annotations

import io
import warnings
from typing import Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.io import ImageReadMode, decode_image


class BadImageError(Exception):
    """An image that no decoder reads; the message says why."""


class Picture(Protocol):
    """An image whose pixels are read when asked for, whole or in part."""

    @property
    def height(self) -> int:
        """Pixels from top to bottom."""

    @property
    def width(self) -> int:
        """Pixels from left to right."""

    def region(self, top: int, left: int, height: int, width: int) -> Tensor:
        """The uint8 RGB pixels (3, height, width) of a box that lies within the image."""


class Pixels:
    """A picture that is already decoded."""

    def __init__(self, pixels: Tensor) -> None:
        self.pixels = pixels

    @property
    def height(self) -> int:
        """Pixels from top to bottom."""
        return self.pixels.shape[1]

    @property
    def width(self) -> int:
        """Pixels from left to right."""
        return self.pixels.shape[2]

    def region(self, top: int, left: int, height: int, width: int) -> Tensor:
        """The uint8 RGB pixels (3, height, width) of a box that lies within the image."""
        return self.pixels[:, top : top + height, left : left + width]


def open_picture(data: bytes) -> Picture:
    """The picture in an encoded image file. EXIF orientation is ignored, as in the references.

    Raises:
        BadImageError: neither torchvision's decoder nor Pillow reads it.
    """
    return Pixels(decode(data))


def decode(data: bytes) -> Tensor:
    """The whole image as uint8 RGB (3, H, W); Pillow reads what torchvision's decoder refuses.

    Raises:
        BadImageError: neither reads it.
    """
    if not data:
        raise BadImageError("the file is empty")
    with warnings.catch_warnings():
        # The array is read-only, and torchvision 0.29 announces another package for decoding; neither is news here.
        warnings.simplefilter("ignore")
        try:
            pixels: Tensor = decode_image(torch.frombuffer(data, dtype=torch.uint8), ImageReadMode.RGB)
        except RuntimeError:
            return _decode_with_pillow(data)
    if pixels.dtype == torch.uint8 and pixels.ndim == 3:
        return pixels
    return _decode_with_pillow(data)  # 16-bit PNG, animated GIF


def _decode_with_pillow(data: bytes) -> Tensor:
    try:
        with Image.open(io.BytesIO(data)) as image:
            pixels = np.array(_eight_bit(image).convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise BadImageError(str(error)) from error
    return torch.from_numpy(pixels).permute(2, 0, 1)


def _eight_bit(image: Image.Image) -> Image.Image:
    """16-bit gray scaled to 8 bits, which Pillow's own conversion would clip; other images as they are."""
    if not image.mode.startswith("I"):
        return image
    return Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
