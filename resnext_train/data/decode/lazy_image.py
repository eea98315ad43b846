"""Image bytes to pixels: the whole image, or exactly a box of it."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, cast

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torchvision.io import ImageReadMode

from resnext_train.data.decode.jpeg_header import BadImageError, Header, is_jpeg, read_header
from resnext_train.data.decode.restart_markers import RestartSegments, find_segments

MAX_PIXELS = 100_000_000
"""Larger images are refused before they are decoded: the pixels of such a one take 300 MB, decoding up to twice that,
and each loader process may hold one."""

_FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "PPM", "TIFF")
"""What Pillow may open. Of its other formats some start programs."""


class LazyImage(Protocol):
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


class DecodedImage:
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
        return self.pixels.narrow(1, top, height).narrow(2, left, width)  # half the time of slices


class _JpegImage:
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


class _OtherImage:
    """An image of another format, which is always decoded whole."""

    def __init__(self, data: bytes | bytearray) -> None:
        self._data = data
        self.height, self.width = _size(data)

    def region(self, top: int, left: int, height: int, width: int) -> Tensor:
        """The uint8 RGB pixels (3, height, width) of a box that lies within the image."""
        return _decode(self._data)[:, top : top + height, left : left + width]


def open_image(data: bytes | bytearray) -> LazyImage:
    """The picture in an encoded image file. EXIF orientation is ignored, as in the references.

    Raises:
        BadImageError: it is no image of a known format, its header is damaged, or it has more than MAX_PIXELS.
    """
    if not data:
        raise BadImageError("the file is empty")
    image = _understood(data)
    check_size(image.height, image.width)
    return image


def _understood(data: bytes | bytearray) -> LazyImage:
    if is_jpeg(data):
        try:
            return _JpegImage(data, read_header(data))
        except BadImageError:
            pass  # Pillow and libjpeg read on over some damage
    return _OtherImage(data)


def decode(data: bytes | bytearray) -> Tensor:
    """The whole image as uint8 RGB (3, H, W).

    JPEG is decoded by torchvision. Pillow decodes what that refuses, and all other formats: torchvision would decode
    every frame of a GIF, and one wrong byte in a PNG ends the process.

    Raises:
        BadImageError: neither reads it, or it has more than MAX_PIXELS.
    """
    image = open_image(data)
    return image.region(0, 0, image.height, image.width)


def check_size(height: int, width: int) -> None:
    """Refuse an image that would take too much memory.

    Raises:
        BadImageError: it has more than MAX_PIXELS.
    """
    if height * width > MAX_PIXELS:
        raise BadImageError(f"the image of {width:,} × {height:,} pixels is larger than the limit of {MAX_PIXELS:,}")


def _decode(data: bytes | bytearray) -> Tensor:
    decoded = _decode_jpeg(data) if is_jpeg(data) else None
    return _decode_with_pillow(data) if decoded is None else decoded


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
    """Height and width as Pillow reads them from an image's header."""
    with _opened(data) as image:
        return image.height, image.width


def _decode_with_pillow(data: bytes | bytearray) -> Tensor:
    with _opened(data) as image:
        pixels = np.array(_eight_bit(image).convert("RGB"))
    return torch.from_numpy(pixels).permute(2, 0, 1)


@contextmanager
def _opened(data: bytes | bytearray) -> Iterator[Image.Image]:
    """An image opened by Pillow, whose errors, inside too, become BadImageError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a size that is refused here, of odd EXIF data
            with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
                yield image
    except Image.DecompressionBombError as error:
        raise BadImageError(f"the image is larger than the limit of {MAX_PIXELS:,} pixels") from error
    except UnidentifiedImageError as error:
        raise BadImageError("it is no image of a known format, or its header is damaged") from error
    except Exception as error:  # its readers raise many kinds on damaged files
        raise BadImageError(str(error) or type(error).__name__) from error


def _eight_bit(image: Image.Image) -> Image.Image:
    """16-bit gray scaled to 8 bits, which Pillow's own conversion would clip; other images as they are."""
    if not (image.mode.startswith("I;16") or (image.mode, image.format) == ("I", "PNG")):
        return image
    return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
