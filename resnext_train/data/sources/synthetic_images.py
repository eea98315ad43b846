"""Procedural images for smoke runs, demos and benchmarks: learnable, seeded, any size and class count, no files."""

from __future__ import annotations

import colorsys
import math
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from resnext_train.data.decode.lazy_image import DecodedImage, LazyImage
from resnext_train.data.rng import noise, uniforms
from resnext_train.data.sources.image_source import MEMORY

_HUES, _CONTRASTS = 12, 5
_NOISE = 48
"""Amplitude of the pixel noise, in levels of 255."""


class SyntheticImages:
    """Noisy gratings, whose two colours and number of stripes are those of the class.

    The angle and phase of the stripes and the noise vary from image to image, so flips, crops and mild colour changes
    do not change the class. Image i has class i mod classes. The two splits never share an image.
    """

    storage = MEMORY

    def __init__(self, classes: int, images: int, size: int, split: Literal["train", "val"]) -> None:
        width = max(4, len(str(classes - 1)))
        self.classes: tuple[str, ...] = tuple(f"class_{c:0{width}d}" for c in range(classes))
        self.labels: NDArray[np.int64] = np.arange(images, dtype=np.int64) % classes
        self.size, self._split = size, split
        self._seed = {"train": 1, "val": 2}[split]
        y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size
        self._y, self._x = y, x

    def __reduce__(self) -> tuple[type[SyntheticImages], tuple[int, int, int, Literal["train", "val"]]]:
        return SyntheticImages, (len(self.classes), len(self.labels), self.size, self._split)

    def __len__(self) -> int:
        return len(self.labels)

    def name(self, i: int) -> str:
        return f"synthetic image {i}"

    def image(self, i: int) -> LazyImage:
        turn, phase = 2 * math.pi * uniforms(self._seed, 0, np.array([i]), 2)[0]
        dark, bright, stripes = _class_pattern(int(self.labels[i]))
        angle = 2 * math.pi * stripes * (self._x * np.float32(math.cos(turn)) + self._y * np.float32(math.sin(turn)))
        blend = (0.5 + 0.5 * np.sin(angle + np.float32(phase)))[..., None]
        grain = noise(self._seed, i, self.size * self.size).reshape(self.size, self.size, 1)
        pixels = dark + blend * (bright - dark) + (grain.astype(np.float32) - 128) * (_NOISE / 128)
        image = torch.from_numpy(pixels.clip(0, 255).astype(np.uint8))
        return DecodedImage(image.permute(2, 0, 1))


def _class_pattern(label: int) -> tuple[NDArray[np.float32], NDArray[np.float32], int]:
    """Return the two colours and the number of stripes of a class, from the digits of its number."""
    rest, hue = divmod(label, _HUES)
    stripes, contrast = divmod(rest, _CONTRASTS)
    first, second = hue / _HUES, (hue + 2 + 2 * contrast) / _HUES
    return _rgb(first, 0.55), _rgb(second, 0.85), 2 + stripes


def _rgb(hue: float, value: float) -> NDArray[np.float32]:
    return np.array(colorsys.hsv_to_rgb(hue % 1, 0.75, value), np.float32) * 255
