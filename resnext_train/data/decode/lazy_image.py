"""Decode image bytes to pixels: the whole image, or exactly a box of it."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from resnext_train.data.decode.image_limits import check_size
from resnext_train.data.decode.jpeg_decoder import decode_jpeg
from resnext_train.data.decode.jpeg_header import BadImageError, JpegHeader, is_jpeg, read_header
from resnext_train.data.decode.pillow_decoder import decode_with_pillow, read_size
from resnext_train.data.decode.restart_markers import RestartSegments, find_segments


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
                pixels = decode_jpeg(small)
        if pixels is None:
            pixels, y, x = _decode(self._data), top, left
        return pixels[:, y : y + height, x : x + width]


class _OtherImage:
    """An image of another format, always decoded whole."""

    def __init__(self, data: bytes | bytearray) -> None:
        self._data = data
        self.height, self.width = read_size(data)

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

    Pillow decodes what the decoders of JPEG refuse, and all other formats: torchvision would decode every frame of a
    GIF, and one wrong byte in a PNG would end the process.

    Raises:
        BadImageError: no decoder can decode it, or `open_image` refuses it.
    """
    image = open_image(data)
    return image.region(0, 0, image.height, image.width)


def _decode(data: bytes | bytearray) -> Tensor:
    decoded = decode_jpeg(data) if is_jpeg(data) else None
    return decode_with_pillow(data) if decoded is None else decoded
