"""Operations on one uint8 image, with the pixels of Pillow: the published runs of RandAugment and its kin used them.

torchvision's operations on tensors and mmcv's on arrays differ from Pillow's by a level here and there. Where numpy
gives the same bits in less time it computes them; else Pillow does.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageOps, ImageStat

Pixels = NDArray[np.uint8]
"""RGB, (H, W, 3), contiguous."""

Resample = Literal["nearest", "bilinear", "bicubic"]


class Sampling(NamedTuple):
    """How an image is moved."""

    resample: Resample
    fill: tuple[int, int, int]
    """The colour of pixels that come from outside the image, in levels of 0 to 255."""


Operation = Callable[[Pixels, float, Sampling], Pixels]
"""Takes an image, a strength, whose meaning each operation has for itself, and how to sample. Returns another image."""


def identity(pixels: Pixels, _: float, __: Sampling) -> Pixels:
    """Return the image itself."""
    return pixels


def shear_x(pixels: Pixels, slope: float, sampling: Sampling) -> Pixels:
    """Take each pixel from `slope` times its row further right."""
    return _affine(pixels, (1, slope, 0, 0, 1, 0), sampling)


def shear_y(pixels: Pixels, slope: float, sampling: Sampling) -> Pixels:
    """Take each pixel from `slope` times its column further down."""
    return _affine(pixels, (1, 0, 0, slope, 1, 0), sampling)


def translate_x(pixels: Pixels, distance: float, sampling: Sampling) -> Pixels:
    """Take each pixel from `distance` pixels further right, which is a whole number for resample `nearest`."""
    return _translate(pixels, distance, 1, sampling)


def translate_y(pixels: Pixels, distance: float, sampling: Sampling) -> Pixels:
    """Take each pixel from `distance` pixels further down, which is a whole number for resample `nearest`."""
    return _translate(pixels, distance, 0, sampling)


def rotate(pixels: Pixels, degrees: float, sampling: Sampling) -> Pixels:
    """Rotate counter-clockwise about the centre."""
    return _pixels(_image(pixels).rotate(degrees, _PILLOW[sampling.resample], fillcolor=sampling.fill))


def brightness(pixels: Pixels, factor: float, _: Sampling) -> Pixels:
    """Blend with black: factor 0 gives black, 1 the image, more than 1 a brighter one."""
    return _blend_with_gray(pixels, 0, factor)


def contrast(pixels: Pixels, factor: float, _: Sampling) -> Pixels:
    """Blend with the mean gray of the image."""
    return _blend_with_gray(pixels, int(ImageStat.Stat(_image(pixels).convert("L")).mean[0] + 0.5), factor)


def color(pixels: Pixels, factor: float, _: Sampling) -> Pixels:
    """Blend with the image in gray."""
    return _pixels(ImageEnhance.Color(_image(pixels)).enhance(factor))


def sharpness(pixels: Pixels, factor: float, _: Sampling) -> Pixels:
    """Blend with a smoothed image."""
    return _pixels(Image.blend(_image(_smoothed(pixels)), _image(pixels), factor))


def posterize(pixels: Pixels, bits: float, _: Sampling) -> Pixels:
    """Keep the highest `bits`, 0 to 8, of each level; 0 gives black, which Pillow refuses since version 13."""
    return pixels & np.uint8(256 - 2 ** (8 - int(bits)) if bits else 0)


def solarize(pixels: Pixels, threshold: float, _: Sampling) -> Pixels:
    """Invert levels from `threshold`, 0 to 256, on."""
    return pixels ^ np.negative((pixels >= math.ceil(threshold)).view(np.uint8))  # -1 is 255: all bits


def solarize_add(pixels: Pixels, added: float, _: Sampling) -> Pixels:
    """Add a whole number of 0 to 127 levels to those below 128."""
    return pixels + (pixels < 128) * np.uint8(added)


def autocontrast(pixels: Pixels, _: float, __: Sampling) -> Pixels:
    """Stretch each channel to the levels 0 to 255."""
    return _pixels(ImageOps.autocontrast(_image(pixels)))


def equalize(pixels: Pixels, _: float, __: Sampling) -> Pixels:
    """Spread each channel so that about as many pixels have each level."""
    return _pixels(ImageOps.equalize(_image(pixels)))


def invert(pixels: Pixels, _: float, __: Sampling) -> Pixels:
    """Return the negative."""
    return ~pixels


_PILLOW = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}


def _image(pixels: Pixels) -> Image.Image:
    return Image.frombuffer("RGB", pixels.shape[1::-1], pixels, "raw", "RGB", 0, 1)


def _pixels(image: Image.Image) -> Pixels:
    return np.asarray(image)


def _affine(pixels: Pixels, matrix: tuple[float, ...], sampling: Sampling) -> Pixels:
    """Take pixel (x, y) from (a x + b y + c, d x + e y + f) of `matrix` (a, b, c, d, e, f)."""
    image, resample = _image(pixels), _PILLOW[sampling.resample]
    return _pixels(image.transform(image.size, Image.Transform.AFFINE, matrix, resample, fillcolor=sampling.fill))


def _blend_with_gray(pixels: Pixels, level: int, factor: float) -> Pixels:
    """Return level + factor · (pixels - level), clamped and cut to whole levels: Pillow's blend, of each level once."""
    ramp = Image.frombytes("L", (256, 1), bytes(range(256)))
    table = Image.blend(Image.new("L", ramp.size, level), ramp, factor).tobytes()
    return np.frombuffer(pixels.tobytes().translate(table), np.uint8).reshape(pixels.shape)


def _smoothed(pixels: Pixels) -> Pixels:
    """Return Pillow's ImageFilter.SMOOTH: weights 5 in the middle and 1 around it, rounded; a border of 1 is kept."""
    smoothed, wide = pixels.copy(), pixels.astype(np.uint16)
    across = wide[:, :-2] + wide[:, 1:-1] + wide[:, 2:]
    total = across[:-2] + across[1:-1] + across[2:] + 4 * wide[1:-1, 1:-1]
    smoothed[1:-1, 1:-1] = (2 * total + 13) // 26  # total / 13 rounded; no 13th is a half
    return smoothed


_AT_ONCE = 64
"""Rows that are interpolated at once: few enough for a core's cache."""


def _translate(pixels: Pixels, distance: float, axis: int, sampling: Sampling) -> Pixels:
    """Take rows (axis 0) or columns (axis 1) from `distance` further on.

    Pillow would resample along both axes, with the same bits in two to four times the time. A whole `distance` needs
    a copy only.
    """
    index = np.arange(pixels.shape[axis])
    middle = index + 0.5 + distance  # where the middle of each row or column comes from
    inside = np.flatnonzero((middle >= 0) & (middle < len(index)))
    moved = np.empty_like(pixels)
    moved.reshape(len(pixels), -1)[:] = np.tile(np.array(sampling.fill, np.uint8), pixels.shape[1])
    if len(inside):
        to = slice(inside[0], inside[-1] + 1)
        place = middle[to] - 0.5
        offset = int((np.floor(place) - index[to]).min())  # that of others may be 1 more, by rounding
        fraction = place - (index[to] + offset)
        target = moved[:, to] if axis else moved[to]
        if fraction.any():
            _interpolate(pixels, to.start + offset, fraction, axis, sampling.resample, target)
        else:
            target[:] = np.take(pixels, index[to] + offset, axis)
    return moved


def _interpolate(
    pixels: Pixels, first: int, fraction: NDArray[np.floating], axis: int, resample: Resample, out: Pixels
) -> None:
    """Write to `out` what is `fraction` (n,) of a pixel behind the n rows (axis 0) or columns (axis 1) from `first`."""
    before, taps = (1, 4) if resample == "bicubic" else (0, 2)
    count, values = len(fraction), 3 if axis else 1
    places = np.arange(first - before, first - before + count + taps - 1).clip(0, pixels.shape[axis] - 1)
    taken = np.take(pixels, places, axis).astype(np.int16)
    rows = taken.reshape(len(taken), -1)
    cuts = [slice(values * i, values * (i + count)) for i in range(taps)]
    neighbours = [rows[:, cut] if axis else rows[cut] for cut in cuts]
    weights = np.broadcast_to(np.repeat(fraction, 3) if axis else fraction[:, None], neighbours[0].shape)
    curve = _cubic if resample == "bicubic" else _linear
    for start in range(0, len(weights), _AT_ONCE):
        block = slice(start, start + _AT_ONCE)
        out[block] = curve(weights[block], *(pixel[block] for pixel in neighbours)).reshape(out[block].shape)


_Place = NDArray[np.floating]
_Levels = NDArray[np.int16]


def _linear(x: _Place, a: _Levels, b: _Levels) -> _Place:
    """Return the line through `a` at 0 and `b` at 1, at `x`, in Pillow's order of sums."""
    y: _Place = (b - a) * x
    y += a
    return y


def _cubic(x: _Place, a: _Levels, b: _Levels, c: _Levels, d: _Levels) -> _Place:
    """Return Pillow's cubic curve by pixels at -1, 0, 1 and 2, at `x` in [0, 1], clamped to levels."""
    y: _Place = (b - a - c + d) * x
    y += 2 * (a - b) + c - d
    y *= x
    y += c - a
    y *= x
    y += b
    return y.clip(0, 255, out=y)
