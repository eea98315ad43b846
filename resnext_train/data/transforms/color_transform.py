"""Augment the colour of a whole micro-batch and normalise it, on the device, as one affine map per image.

Brightness is a multiplication, saturation a 3×3 matrix, contrast and lighting are affine, and the papers' code does
not clamp in between. So the whole chain with the normalisation is y = x A + m B + c on RGB, where m is the crop's mean
RGB. The loader processes compute A, B and c of each image from its draws, and the device
applies them. This is exact up to rounding.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from resnext_train.config.fixed_choices import GRAY, LIGHTING_EIGENVALUES, LIGHTING_EIGENVECTORS
from resnext_train.data.transforms.random_draws import ColorDraws

ORDERS = tuple(itertools.permutations(range(3)))
"""The possible orders of brightness (0), contrast (1) and saturation (2)."""

JITTER_FIELDS = 9
"""Numbers per image in `draw_jitter`: three operations in order, three factors, three lighting shifts (R, G, B)."""

MAP_ROWS = 7
"""Rows of R, G, B in an image's map: y = x · rows 0 to 2 + m · rows 4 to 6 + row 3. The pixel x and the crop's mean
colour m are in levels of 0 to 255."""


@dataclass(frozen=True)
class ColorTransform:
    """Strengths of the colour augmentation (the augment section) and the normalisation (the data section)."""

    brightness: float
    contrast: float
    saturation: float
    lighting: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    memory_format: torch.memory_format = torch.channels_last
    """Layout in which the network takes images."""

    def draw_jitter(self, draws: ColorDraws) -> NDArray[np.float32]:
        """Return the (n, JITTER_FIELDS) numbers of n images.

        Factors are 1 + U(-strength, strength); lighting is the eigenvectors times N(0, lighting) times the
        eigenvalues (AlexNet paper, section 4.1), with normal numbers by the Box-Muller transform.
        """
        order = np.array(ORDERS)[(draws.order * len(ORDERS)).astype(np.int64)]
        factors = 1 + (2 * draws.factors - 1) * (self.brightness, self.contrast, self.saturation)
        radius = np.sqrt(-2 * np.log1p(-draws.radius[:, [0, 0, 1]]))
        turn = 2 * np.pi * draws.angle[:, [0, 0, 1]]
        normals = radius * np.where((True, False, True), np.cos(turn), np.sin(turn))
        shift = (normals * self.lighting * LIGHTING_EIGENVALUES) @ np.array(LIGHTING_EIGENVECTORS).T
        fields: NDArray[np.float32] = np.concatenate((order, factors, shift), axis=1).astype(np.float32)
        return fields

    @property
    def changes_colors(self) -> bool:
        """Whether it does more than to normalise."""
        return any((self.brightness, self.contrast, self.saturation, self.lighting))

    def draw_maps(self, draws: ColorDraws) -> NDArray[np.float32] | None:
        """Return the maps (n, MAP_ROWS, 3) of n images, or None where no colour is changed."""
        return self.maps(self.draw_jitter(draws)).astype(np.float32) if self.changes_colors else None

    def maps(self, jitter: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return the map (n, MAP_ROWS, 3) of each row of `draw_jitter`, with the normalisation.

        All three operations blend the current colour x with a target t: f·x + (1 - f)·t, where t is 0 for brightness,
        the mean gray of the current image for contrast, and the pixel's own gray for saturation. The mean colour goes
        through the same chain as the pixels, so the chain is linear in both.
        """
        fields = jitter.astype(np.float64)
        n, gray = len(fields), np.array([GRAY]).T @ np.ones((1, 3))  # x @ gray: the pixel's gray, three times
        of_pixel, of_mean, constant = np.tile(np.eye(3), (n, 1, 1)), np.zeros((n, 3, 3)), np.zeros((n, 1, 3))
        for operation in fields[:, :3].astype(np.int64).T:
            factor = fields[np.arange(n), 3 + operation][:, None, None]
            contrast, saturation = ((operation == kind)[:, None, None] for kind in (1, 2))
            with_mean = ((1 - factor) * contrast) * gray
            linear = factor * np.eye(3) + ((1 - factor) * saturation) * gray
            of_mean = of_mean @ linear + (of_pixel + of_mean) @ with_mean
            of_pixel, constant = of_pixel @ linear, constant @ (linear + with_mean)
        constant = constant + fields[:, None, 6:] - self.mean
        levels = 255 * np.array(self.std)
        return np.concatenate((of_pixel / levels, constant / self.std, of_mean / levels), axis=1)

    def __call__(
        self,
        images: Tensor,
        maps: Tensor | None,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """Map uint8 (N, 3, H, W) to normalised `dtype` of the same shape, in `memory_format`.

        `maps` is (N, MAP_ROWS, 3) from `draw_maps`, or None to normalise only, as in evaluation. Computes in fp32 at
        least, and rounds at the end.
        """
        out = torch.empty(images.shape, dtype=dtype, device=images.device, memory_format=self.memory_format)
        pixels, result = images.permute(0, 2, 3, 1), out.permute(0, 2, 3, 1)
        wide = torch.promote_types(dtype, torch.float32)
        if images.device.type in _IN_BLOCKS:
            self._map_in_blocks(pixels, maps, wide, result)
        else:
            self._map_at_once(pixels, maps, wide, result)
        return out

    def _map_at_once(self, pixels: Tensor, maps: Tensor | None, wide: torch.dtype, out: Tensor) -> None:
        """Map uint8 `pixels` (N, H, W, 3) to `out` in a few calls."""
        flat = pixels.to(wide).reshape(len(pixels), -1, 3)
        if maps is None:
            scale, bias = _normalisation(self.mean, self.std, 1, wide, pixels.device)
            mapped = torch.addcmul(bias, flat, scale)
        else:
            maps = maps.to(wide)
            bias = torch.baddbmm(maps[:, 3:4], flat.mean(1, keepdim=True), maps[:, 4:])
            mapped = torch.baddbmm(bias, flat, maps[:, :3])
        out.copy_(mapped.view(pixels.shape))

    def _map_in_blocks(self, pixels: Tensor, maps: Tensor | None, wide: torch.dtype, out: Tensor) -> None:
        """Do the same in blocks of images that stay in the CPU's cache.

        A matrix product with only 3 columns leaves a CPU's vector units idle. With eight pixels side by side (24
        columns) and the 3 × 3 matrix eight times along the diagonal, it takes a quarter of the time, though most terms
        are zero.
        """
        n, height, width, _ = pixels.shape
        row = math.gcd(height * width, 64 if maps is None else 8)
        flat = pixels.reshape(n, -1, 3 * row)
        size = max(1, _CACHED // flat[0].numel())
        buffer = torch.empty((size, *flat.shape[1:]), dtype=wide)
        # The same numbers in another order of images and pixels, or other numbers, go by way of the buffer.
        target = out.view(flat.shape) if out.is_contiguous() and out.dtype == wide else None
        if maps is None:
            scale, bias = _normalisation(self.mean, self.std, row, wide, pixels.device)
        else:
            maps = maps.to(wide)
            matrices = _block_diagonal(maps[:, :3], row)
        for start in range(0, n, size):
            block = slice(start, start + size)
            levels = buffer[: min(size, n - start)].copy_(flat[block])
            into = None if target is None else target[block]
            if maps is None:
                mapped = torch.addcmul(bias, levels, scale, out=into)
            else:
                # Sums of integers: exact in fp32, in any order, up to 256 × 256 pixels.
                mean = levels.sum(1).view(-1, row, 3).sum(1, keepdim=True) / (height * width)
                bias = torch.baddbmm(maps[block, 3:4], mean, maps[block, 4:]).repeat(1, 1, row)
                mapped = torch.baddbmm(bias, levels, matrices[block], out=into)
            if into is None:
                out[block] = mapped.view(-1, height, width, 3)


_IN_BLOCKS = {"cpu"}
"""Kinds of devices on which images are mapped in blocks."""

_CACHED = 2**16
"""Numbers in a block: in fp32, half of a core's usual cache of 512 KB."""


@contextmanager
def mapped_as_on_gpus() -> Iterator[None]:
    """While inside, map on the CPU as on a GPU, to count or to compare."""
    before = _IN_BLOCKS.copy()
    _IN_BLOCKS.clear()
    try:
        yield
    finally:
        _IN_BLOCKS.update(before)


def _block_diagonal(matrices: Tensor, times: int) -> Tensor:
    """Return (N, 3 · times, 3 · times): each of the (N, 3, 3) matrices `times` times along the diagonal."""
    blocks = torch.einsum("nij,kl->nkilj", matrices, torch.eye(times, dtype=matrices.dtype))
    return blocks.reshape(len(matrices), 3 * times, 3 * times)


@functools.cache
def _normalisation(
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    times: int,
    dtype: torch.dtype,
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    """Return scale and bias, for levels of `times` pixels side by side; cached, so not copied there in every step."""
    scale = [1 / (255 * s) for s in std]
    bias = [-m / s for m, s in zip(mean, std, strict=True)]
    return tuple(torch.tensor(values * times, dtype=dtype, device=device) for values in (scale, bias))  # type: ignore[return-value]
