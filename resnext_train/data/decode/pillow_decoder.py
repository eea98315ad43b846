"""Decode images of any usual format with Pillow."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from resnext_train.data.decode.image_limits import MAX_PIXELS
from resnext_train.data.decode.jpeg_header import BadImageError
from resnext_train.data.decode.silent_stderr import silent_stderr

_FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "PPM", "TIFF")
"""What Pillow may open. Some of its other formats start programs."""


def read_size(data: bytes | bytearray) -> tuple[int, int]:
    """Return height and width from an image's header. Raises BadImageError."""
    with _opened(data) as image:
        return image.height, image.width


def decode_with_pillow(data: bytes | bytearray) -> Tensor:
    """Decode to uint8 RGB (3, H, W); of several frames the first. Raises BadImageError."""
    with _opened(data) as image:
        return pixels_of(image)


def pixels_of(image: Image.Image) -> Tensor:
    """Return the pixels of an image of Pillow, uint8 RGB (3, H, W). Raises what Pillow's readers raise."""
    pixels = np.array(_eight_bit(image).convert("RGB"))
    return torch.from_numpy(pixels).permute(2, 0, 1)


@contextmanager
def _opened(data: bytes | bytearray) -> Iterator[Image.Image]:
    """Open an image with Pillow; its errors, also those raised inside, become BadImageError."""
    is_tiff = data[:2] in (b"II", b"MM")
    try:
        # libtiff prints a line for each damaged row
        with warnings.catch_warnings(), silent_stderr() if is_tiff else nullcontext():
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
