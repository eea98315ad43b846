"""Image bytes to pixels: the whole image, or exactly a box of it."""

from __future__ import annotations

import io
import warnings
from typing import Protocol, cast

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torchvision.io import ImageReadMode, decode_image

from resnext_train.data.restart import BadImageError, Header, RestartSegments, find_segments, is_jpeg, read_header

__all__ = ["MAX_PIXELS", "BadImageError", "Header", "Picture", "Pixels", "decode", "open_picture", "read_header"]

MAX_PIXELS = 100_000_000
"""Larger images are refused before they are decoded: that many take 300 MB, and each loader process may hold one."""


class Picture(Protocol):
    """An image whose pixels are read when asked for, whole or in part."""

    @property
    def height(self) -> int:
        """Pixels from top to bottom."""

    @property
    def width(self) -> int:
        """Pixels from left to right."""

    def region(self, top: int, left: int, height: int, width: int) -> Tensor:
        """The uint8 RGB pixels (3, height, width) of a box that lies within the image.

        Raises:
            BadImageError: they cannot be decoded.
        """


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


class _JpegPicture:
    """A JPEG file that is decoded as far as a box needs it, if it has restart markers for that, or else whole."""

    def __init__(self, data: bytes | bytearray, header: Header) -> None:
        self._data, self._header = data, header
        self._segments: RestartSegments | None = None

    @property
    def height(self) -> int:
        """Pixels from top to bottom."""
        return self._header.height

    @property
    def width(self) -> int:
        """Pixels from left to right."""
        return self._header.width

    def region(self, top: int, left: int, height: int, width: int) -> Tensor:
        """The uint8 RGB pixels (3, height, width) of a box, the same as those of the whole image there."""
        pixels = None
        if self._header.interval and (height, width) != (self.height, self.width):
            self._segments = self._segments or find_segments(self._data, self._header)
            if self._segments is not None:
                small, y, x = self._segments.cut(top, left, height, width)
                pixels = _decode_jpeg(small)
        if pixels is None:
            pixels, y, x = _decode(self._data), top, left
        return pixels[:, y : y + height, x : x + width]


def open_picture(data: bytes | bytearray) -> Picture:
    """The picture in an encoded image file. EXIF orientation is ignored, as in the references.

    Raises:
        BadImageError: neither torchvision's decoder nor Pillow reads it, or it has more than MAX_PIXELS.
    """
    if is_jpeg(data):
        try:
            header = read_header(data)
        except BadImageError:
            return Pixels(decode(data))  # libjpeg reads on over some damage
        _check_size(header.height, header.width)
        return _JpegPicture(data, header)
    return Pixels(decode(data))


def decode(data: bytes | bytearray) -> Tensor:
    """The whole image as uint8 RGB (3, H, W); Pillow reads what torchvision's decoder refuses.

    Raises:
        BadImageError: neither reads it, or it has more than MAX_PIXELS.
    """
    if not data:
        raise BadImageError("the file is empty")
    _check_size(*_size(data))
    return _decode(data)


def _decode(data: bytes | bytearray) -> Tensor:
    if is_jpeg(data):
        decoded = _decode_jpeg(data)
        return _decode_with_pillow(data) if decoded is None else decoded
    with warnings.catch_warnings():
        # The bytes may be read-only, and torchvision 0.29 announces another package for decoding; neither is news here.
        warnings.simplefilter("ignore")
        try:
            pixels: Tensor = decode_image(torch.frombuffer(data, dtype=torch.uint8), ImageReadMode.RGB)
        except RuntimeError:
            return _decode_with_pillow(data)
    if pixels.dtype == torch.uint8 and pixels.ndim == 3:
        return pixels
    return _decode_with_pillow(data)  # 16-bit PNG, animated GIF


def _decode_jpeg(data: bytes | bytearray) -> Tensor | None:
    """RGB pixels (3, H, W), or None where libjpeg refuses.

    This is what torchvision.io.decode_jpeg calls. It is called directly because to silence the function's notice of
    its successor takes as long as to decode 50 × 50 pixels.
    """
    # From read-only memory, torch would warn once that the tensor could be written to.
    encoded = torch.frombuffer(data if isinstance(data, bytearray) else bytearray(data), dtype=torch.uint8)
    try:
        return cast(Tensor, torch.ops.image.decode_jpeg(encoded, ImageReadMode.RGB.value, False))
    except RuntimeError:
        return None


def _size(data: bytes | bytearray) -> tuple[int, int]:
    """Height and width as an image file states them."""
    if is_jpeg(data):
        try:
            header = read_header(data)
            return header.height, header.width
        except BadImageError:
            pass  # libjpeg reads on over some damage, and so does Pillow
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a size that _check_size refuses, or of odd EXIF data
            with Image.open(io.BytesIO(data)) as image:
                return image.height, image.width
    except Image.DecompressionBombError as error:
        raise BadImageError(f"the image is larger than {MAX_PIXELS:,} pixels") from error
    except UnidentifiedImageError as error:
        raise BadImageError("it is no image of a known format, or its header is damaged") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise BadImageError(str(error)) from error


def _check_size(height: int, width: int) -> None:
    if height * width > MAX_PIXELS:
        raise BadImageError(f"{width} × {height} pixels are more than the limit of {MAX_PIXELS:,}")


def _decode_with_pillow(data: bytes | bytearray) -> Tensor:
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
