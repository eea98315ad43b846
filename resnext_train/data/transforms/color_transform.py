"""Augment the colour of a whole micro-batch and normalise it, on the device, as one affine map per image.

Brightness is a multiplication, saturation a 3×3 matrix, contrast and lighting are affine, and the papers' code does
not clamp in between. So the whole chain with the normalisation is y = M x + b on RGB, with a 3×3 matrix M and a bias b
per image that depend on its pixels only through the crop's mean RGB. This is exact up to rounding.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from resnext_train.data.transforms.random_draws import ColorDraws

GRAY = (0.299, 0.587, 0.114)
"""Weights of R, G, B in gray (ITU-R BT.601)."""

EIGENVALUES = (0.2175, 0.0188, 0.0045)
EIGENVECTORS = ((-0.5675, 0.7192, 0.4009), (-0.5808, -0.0045, -0.8140), (-0.5836, -0.6948, 0.4203))
"""Principal components of ImageNet's colours on a scale of 0 to 1, from fb.resnet.torch; rows are R, G, B."""

ORDERS = tuple(itertools.permutations(range(3)))
"""The possible orders of brightness (0), contrast (1) and saturation (2)."""

JITTER_FIELDS = 9
"""Numbers per image in `draw_jitter`: three operations in order, three factors, three lighting shifts (R, G, B)."""


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
        shift = (normals * self.lighting * EIGENVALUES) @ np.array(EIGENVECTORS).T
        fields: NDArray[np.float32] = np.concatenate((order, factors, shift), axis=1).astype(np.float32)
        return fields

    def __call__(
        self, images: Tensor, jitter: Tensor | None, dtype: torch.dtype = torch.float32, out: Tensor | None = None
    ) -> Tensor:
        """Map uint8 (N, 3, H, W) to normalised `dtype` of the same shape, in `memory_format`.

        `jitter` is (N, JITTER_FIELDS) from `draw_jitter`, or None in evaluation, which only normalises. The result is
        written to `out` if given, which must have the same shape, dtype and memory layout.
        """
        if out is None:
            out = torch.empty(images.shape, dtype=dtype, device=images.device, memory_format=self.memory_format)
        if not out.is_contiguous(memory_format=torch.channels_last):  # pixel by pixel first, as all maps here write
            return out.copy_(self(images, jitter, dtype, torch.empty_like(out, memory_format=torch.channels_last)))
        by_image = images.device.type == "cpu"
        (_map_by_image if by_image else _map_at_once)(
            images.permute(0, 2, 3, 1),
            out.permute(0, 2, 3, 1),
            None if jitter is None else jitter.to(dtype),
            self._affine,
        )
        return out

    def _affine(self, mean: Tensor, jitter: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return matrix (N, 3, 3) and bias (N, 3) from levels (0 to 255) to normalised colours; `mean` is in levels."""
        matrix = _constant(_IDENTITY, mean).expand(len(mean), 3, 3) / 255
        bias = torch.zeros_like(mean)
        if jitter is not None:
            mean = mean / 255
            for operation in jitter[:, :3].unbind(1):
                index = operation.long().unsqueeze(1)
                factor = jitter[:, 3:6].gather(1, index)
                matrix, bias, mean = _apply(index, factor, matrix, bias, mean)
            bias = bias + jitter[:, 6:9]
        std = _constant(self.std, mean)
        return matrix / std[:, None], (bias - _constant(self.mean, mean)) / std


Affine = Callable[[Tensor, Tensor | None], tuple[Tensor, Tensor]]
"""Maps the mean colours and jitter of images to the matrix and bias of each."""


def _map_at_once(images: Tensor, out: Tensor, jitter: Tensor | None, affine: Affine) -> None:
    """Map `images` (N, H, W, 3) to `out` by one batched matrix product."""
    pixels = images.reshape(len(images), -1, 3).to(out.dtype)
    matrix, bias = affine(pixels.mean(1), jitter)
    torch.baddbmm(bias.unsqueeze(1), pixels, matrix.transpose(1, 2), out=out.view_as(pixels))


def _map_by_image(images: Tensor, out: Tensor, jitter: Tensor | None, affine: Affine) -> None:
    """Do the same image by image, in a buffer that stays in the CPU's cache.

    A matrix product with only 3 columns leaves a CPU's vector units idle. With eight pixels side by side (24 columns)
    and the 3 × 3 matrix eight times along the diagonal, it takes a quarter of the time, though most terms are zero.
    """
    n, height, width, _ = images.shape
    row = math.gcd(height * width, 8)
    images, out = images.reshape(n, -1, 3 * row), out.view(n, -1, 3 * row)
    pixels = torch.empty(images.shape[1:], dtype=out.dtype)
    mean = pixels.new_zeros(n, 3)
    if jitter is not None:
        for i in range(n):
            # Sums of integers: exact in fp32, in any order, up to 256 × 256 pixels.
            mean[i] = pixels.copy_(images[i]).sum(0).view(row, 3).sum(0)
    matrix, bias = affine(mean / (height * width), jitter)
    matrix, bias = _block_diagonal(matrix.transpose(1, 2), row), bias.repeat(1, row)
    for i in range(n):
        torch.addmm(bias[i], pixels.copy_(images[i]), matrix[i], out=out[i])


def _block_diagonal(matrices: Tensor, times: int) -> Tensor:
    """Return (N, 3 · times, 3 · times): each of the (N, 3, 3) matrices `times` times along the diagonal."""
    blocks = torch.einsum("nij,kl->nkilj", matrices, torch.eye(times, dtype=matrices.dtype, device=matrices.device))
    return blocks.reshape(len(matrices), 3 * times, 3 * times)


def _apply(index: Tensor, factor: Tensor, matrix: Tensor, bias: Tensor, mean: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Compose the affine map (matrix, bias) with each image's next operation, `index` (N, 1).

    All three operations blend the current colour x with a target t: f·x + (1 - f)·t, where t is 0 for brightness, the
    mean gray of the current image for contrast, and the pixel's own gray for saturation. `mean` is the mean RGB.
    """
    contrast, saturation = (index == 1).to(factor.dtype), (index == 2).to(factor.dtype)
    blend = 1 - factor
    ones, gray = torch.ones_like(mean), _constant(GRAY, mean)
    linear = factor.unsqueeze(2) * _constant(_IDENTITY, mean)
    linear = linear + (blend * saturation).unsqueeze(2) * ones.unsqueeze(2) * gray
    constant = blend * contrast * (mean * gray).sum(1, keepdim=True) * ones
    return (
        linear @ matrix,
        (linear @ bias.unsqueeze(2)).squeeze(2) + constant,
        (linear @ mean.unsqueeze(2)).squeeze(2) + constant,
    )


_IDENTITY = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))


def _constant(values: tuple[object, ...], like: Tensor) -> Tensor:
    """Return `values` as a tensor with the dtype and device of `like`; cached, so not copied there in every step."""
    return _constant_on(values, like.dtype, like.device)


@functools.cache
def _constant_on(values: tuple[object, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=dtype, device=device)
