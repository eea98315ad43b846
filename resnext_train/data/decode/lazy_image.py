"""Decode image bytes to pixels: the whole image, or exactly a box of it."""

from __future__ import annotations

import functools
import io
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Protocol, cast

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torchvision.io import ImageReadMode

from resnext_train.data.decode.jpeg_header import BadImageError, JpegHeader, is_jpeg, read_header
from resnext_train.data.decode.restart_markers import RestartSegments, find_segments

MAX_PIXELS = 100_000_000
"""Larger images are refused before they are decoded: at this size the pixels take 300 MB, decoding up to twice that,
and each loader process may hold one."""

MAX_ASPECT = 250
"""Images whose long side is more than this many times the short one are refused: evaluation resizes the short side, and
the long one with it. At this ratio a short side of 632 makes MAX_PIXELS; usual ones are 224 to 600 pixels."""

_FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "PPM", "TIFF")
"""What Pillow may open. Some of its other formats start programs."""


class LazyImage(Protocol):
    """An image whose pixels are decoded when asked for, whole or in part."""

    @property
    def height(self) -> int: ...

    @property
    def width(self) -> int: ...

    def region(self, top: int, left: int, height: int, width: int) -> Tensor:
        """Return the uint8 RGB pixels (3, height, width) of a box that lies within the image.

        Raises:
            BadImageError: they cannot be decoded.
        """


class DecodedImage:
    """An image that is already decoded."""

    def __init__(self, pixels: Tensor) -> None:
        self.pixels = pixels

    @property
    def height(self) -> int:
        return self.pixels.shape[1]

    @property
    def width(self) -> int:
        return self.pixels.shape[2]

    def region(self, top: int, left: int, height: int, width: int) -> Tensor:
        return self.pixels.narrow(1, top, height).narrow(2, left, width)  # half the time of slices


class _JpegImage:
    """A JPEG file of which only what a box needs is decoded if it has suitable restart markers, else all of it."""

    def __init__(self, data: bytes | bytearray, header: JpegHeader) -> None:
        self._data, self._header = data, header
        self._segments: RestartSegments | None = None

    @property
    def height(self) -> int:
        return self._header.height

    @property
    def width(self) -> int:
        return self._header.width

    def region(self, top: int, left: int, height: int, width: int) -> Tensor:
        pixels = None
        if self._header.interval and (height, width) != (self.height, self.width):
            self._segments = self._segments or find_segments(self._data, self._header)
            if self._segments is not None:
                # The segments around the box are a small JPEG of their own, whose pixels equal the whole image's.
                small, y, x = self._segments.cut(top, left, height, width)
                pixels = _decode_jpeg(small)
        if pixels is None:
            pixels, y, x = _decode(self._data), top, left
        return pixels[:, y : y + height, x : x + width]


class _OtherImage:
    """An image of another format, always decoded whole."""

    def __init__(self, data: bytes | bytearray) -> None:
        self._data = data
        self.height, self.width = _size(data)

    def region(self, top: int, left: int, height: int, width: int) -> Tensor:
        return _decode(self._data)[:, top : top + height, left : left + width]


def open_image(data: bytes | bytearray) -> LazyImage:
    """Return the image in the bytes of a file. EXIF orientation is ignored, as in the references.

    Raises:
        BadImageError: no known format, a damaged header, more than MAX_PIXELS, or a side ratio over MAX_ASPECT.
    """
    if not data:
        raise BadImageError("the file is empty")
    image = _detect_format(data)
    check_size(image.height, image.width)
    return image


def _detect_format(data: bytes | bytearray) -> LazyImage:
    if is_jpeg(data):
        try:
            return _JpegImage(data, read_header(data))
        except BadImageError:
            pass  # Pillow and libjpeg can read past some damage
    return _OtherImage(data)


def decode(data: bytes | bytearray) -> Tensor:
    """Decode a whole image to uint8 RGB (3, H, W).

    torchvision decodes JPEG. Pillow decodes what torchvision refuses, and all other formats: torchvision would decode
    every frame of a GIF, and one wrong byte in a PNG would end the process.

    Raises:
        BadImageError: neither can decode it, or `open_image` refuses it.
    """
    image = open_image(data)
    return image.region(0, 0, image.height, image.width)


def check_size(height: int, width: int) -> None:
    """Raise BadImageError for an image of more than MAX_PIXELS, or longer than MAX_ASPECT times its short side."""
    if height * width > MAX_PIXELS:
        raise BadImageError(f"the image of {width:,} × {height:,} pixels is larger than the limit of {MAX_PIXELS:,}")
    if height > MAX_ASPECT * width or width > MAX_ASPECT * height:
        raise BadImageError(
            f"the image of {width:,} × {height:,} pixels is longer than the limit of {MAX_ASPECT} times its short side"
        )


def _decode(data: bytes | bytearray) -> Tensor:
    decoded = _decode_jpeg(data) if is_jpeg(data) else None
    return _decode_with_pillow(data) if decoded is None else decoded


def _decode_jpeg(data: bytes | bytearray) -> Tensor | None:
    """Decode to RGB pixels (3, H, W), or return None where libjpeg refuses.

    This calls the operator behind torchvision.io.decode_jpeg, because silencing that function's deprecation warning
    takes as long as decoding 50 × 50 pixels. Not for several threads at once: it exchanges the process's stderr.
    """
    # A bytearray: for read-only bytes torch would warn once that the tensor could be written to.
    encoded = torch.frombuffer(data if isinstance(data, bytearray) else bytearray(data), dtype=torch.uint8)
    with _without_stderr():  # libjpeg prints a line for each damage that it reads past
        try:
            return cast(Tensor, torch.ops.image.decode_jpeg(encoded, ImageReadMode.RGB.value, False))
        except RuntimeError:
            return None


@contextmanager
def _without_stderr() -> Iterator[None]:
    """Lose what C libraries print, to whatever has the number 2."""
    nowhere, console = _nowhere(), os.dup(2)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(console, 2)
        os.close(console)


@functools.cache
def _nowhere() -> int:
    return os.open(os.devnull, os.O_WRONLY)


def _size(data: bytes | bytearray) -> tuple[int, int]:
    """Return height and width from an image's header, as Pillow reads it."""
    with _opened(data) as image:
        return image.height, image.width


def _decode_with_pillow(data: bytes | bytearray) -> Tensor:
    with _opened(data) as image:
        pixels = np.array(_eight_bit(image).convert("RGB"))
    return torch.from_numpy(pixels).permute(2, 0, 1)


@contextmanager
def _opened(data: bytes | bytearray) -> Iterator[Image.Image]:
    """Open an image with Pillow; its errors, also those raised inside, become BadImageError."""
    is_tiff = data[:2] in (b"II", b"MM")
    try:
        # libtiff prints a line for each damaged row
        with warnings.catch_warnings(), _without_stderr() if is_tiff else nullcontext():
            warnings.simplefilter("ignore")  # about sizes, which are checked here, and about odd EXIF data
            with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
                yield image
    except Image.DecompressionBombError as error:
        raise BadImageError(f"the image is larger than the limit of {MAX_PIXELS:,} pixels") from error
    except UnidentifiedImageError as error:
        raise BadImageError("it is no image of a known format, or its header is damaged") from error
    except Exception as error:  # Pillow's readers raise many kinds on damaged files
        raise BadImageError(str(error) or type(error).__name__) from error


def _eight_bit(image: Image.Image) -> Image.Image:
    """Scale 16-bit gray to 8 bits, where Pillow's own conversion would clip it; return other images unchanged."""
    if not (image.mode.startswith("I;16") or (image.mode, image.format) == ("I", "PNG")):
        return image
    return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
