"""Files as ImageNet really has them: odd colour spaces, odd names, damage."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from resnext_train.data.decode.jpeg_header import BadImageError
from resnext_train.data.decode.lazy_image import decode


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


GRADIENT = Image.fromarray(np.linspace(0, 255, 40 * 30 * 3).reshape(30, 40, 3).astype(np.uint8))


@pytest.mark.parametrize("form", ["PNG", "GIF", "WEBP", "BMP", "TIFF"])
def test_other_formats_whatever_the_file_is_called(form: str) -> None:
    options = {"lossless": True} if form == "WEBP" else {}
    data = encoded(GRADIENT.quantize(64).convert("RGB") if form == "GIF" else GRADIENT, form, **options)
    with Image.open(io.BytesIO(data)) as image:
        expected = np.array(image.convert("RGB"))
    assert np.array_equal(decode(data).permute(1, 2, 0).numpy(), expected)


def test_gray_and_alpha_become_rgb() -> None:
    gray = decode(encoded(GRADIENT.convert("L"), "JPEG"))
    assert gray.shape == (3, 30, 40)
    assert torch.equal(gray[0], gray[1])
    alpha = GRADIENT.copy()
    alpha.putalpha(128)
    assert np.array_equal(decode(encoded(alpha, "PNG")).permute(1, 2, 0).numpy(), np.asarray(GRADIENT))


def test_cmyk_is_close_to_its_rgb_original() -> None:
    pixels = decode(encoded(GRADIENT.convert("CMYK"), "JPEG", quality=95)).permute(1, 2, 0).numpy()
    assert np.abs(pixels.astype(int) - np.asarray(GRADIENT)).mean() < 4


def test_sixteen_bit_gray_is_scaled_not_clipped() -> None:
    wide = (np.arange(30 * 40).reshape(30, 40) * 50).astype(np.uint16)
    pixels = decode(encoded(Image.fromarray(wide), "PNG"))
    assert pixels.dtype == torch.uint8
    assert np.array_equal(pixels[0].numpy(), (wide >> 8).astype(np.uint8))


def test_exif_orientation_is_ignored() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees
    assert decode(encoded(GRADIENT, "JPEG", exif=exif)).shape == (3, 30, 40)


@pytest.mark.parametrize(
    "data", [b"", b"not an image", encoded(GRADIENT, "JPEG")[:100], encoded(GRADIENT, "PNG")[:100]]
)
def test_damage_is_an_error_that_says_why(data: bytes) -> None:
    with pytest.raises(BadImageError, match=r"\w+ \w+"):
        decode(data)
