"""Colour augmentation and normalisation of a whole group, on the device, as one affine map per image.

Brightness is a multiplication, saturation a 3×3 matrix, contrast and lighting affine, and the papers' code clamps
nothing in between; so the whole chain with the normalisation is y = M x + b on RGB, with a 3×3 matrix M and a bias b
for each image that depend on its pixels only through the crop's mean RGB. That is exact up to rounding.
"""

from __future__ import annotations

import functools
import itertools
import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from resnext_train.data.transforms import COLOUR_DRAWS

GRAY = (0.299, 0.587, 0.114)
"""Weights of R, G, B in gray (ITU-R BT.601)."""

EIGENVALUES = (0.2175, 0.0188, 0.0045)
EIGENVECTORS = (
    (-0.5675, 0.7192, 0.4009),
    (-0.5808, -0.0045, -0.8140),
    (-0.5836, -0.6948, 0.4203),
)
"""Principal components of ImageNet's colours on a scale of 0 to 1, from fb.resnet.torch; rows are R, G, B."""

ORDERS = tuple(itertools.permutations(range(3)))
"""The six orders of brightness (0), contrast (1) and saturation (2)."""

JITTER_FIELDS = 9
"""Numbers per image in `draw_jitter`: three operations in order, three factors, three lighting shifts (R, G, B)."""


@dataclass(frozen=True)
class Photometric:
    """Strengths of the colour augmentation, and the normalisation; see the augment section and the data section."""

    brightness: float
    contrast: float
    saturation: float
    lighting: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def draw_jitter(self, draws: NDArray[np.float64]) -> NDArray[np.float32]:
        """(n, JITTER_FIELDS) numbers of n images from their (n, COLOUR_DRAWS) numbers in [0, 1).

        Factors are 1 + U(-strength, strength); lighting is the eigenvectors times N(0, lighting) times the
        eigenvalues (AlexNet paper, section 4.1), with normal numbers by Box and Muller.
        """
        assert draws.shape[1] == COLOUR_DRAWS
        order = np.array(ORDERS)[(draws[:, 0] * len(ORDERS)).astype(np.int64)]
        factors = 1 + (2 * draws[:, 1:4] - 1) * (self.brightness, self.contrast, self.saturation)
        radius = np.sqrt(-2 * np.log1p(-draws[:, [4, 4, 6]]))
        turn = 2 * np.pi * draws[:, [5, 5, 7]]
        normals = radius * np.where((True, False, True), np.cos(turn), np.sin(turn))
        shift = (normals * self.lighting * EIGENVALUES) @ np.array(EIGENVECTORS).T
        return np.concatenate((order, factors, shift), axis=1).astype(np.float32)

    def __call__(self, images: Tensor, jitter: Tensor | None, dtype: torch.dtype = torch.float32) -> Tensor:
        """uint8 (N, 3, H, W) to normalised `dtype` of the same shape, in channels-last memory.

        `jitter` is (N, JITTER_FIELDS) from `draw_jitter`, or None for evaluation, which only normalises.
        """
        n, _, height, width = images.shape
        row = _pixels_per_row(height * width, images.device)
        rows = images.permute(0, 2, 3, 1).reshape(n, -1, 3 * row).to(dtype)
        matrix, bias = self._affine(rows, jitter)
        out = torch.baddbmm(bias.repeat(1, row).unsqueeze(1), rows, _block_diagonal(matrix.transpose(1, 2), row))
        return out.view(n, height, width, 3).permute(0, 3, 1, 2)

    def _affine(self, rows: Tensor, jitter: Tensor | None) -> tuple[Tensor, Tensor]:
        """Matrix (N, 3, 3) and bias (N, 3) from `rows` (N, ..., 3 · pixels) in 0 to 255 to normalised colours."""
        matrix = _constant(_IDENTITY, rows).expand(len(rows), 3, 3) / 255
        bias = rows.new_zeros(len(rows), 3)
        if jitter is not None:
            jitter = jitter.to(rows.dtype)
            # Sums of whole levels: exact in fp32, in whatever order, up to 256 × 256 pixels.
            sums = rows.sum(1).view(len(rows), -1, 3).sum(1)
            mean = sums / (rows[0].numel() // 3) / 255
            for operation in jitter[:, :3].unbind(1):
                index = operation.long().unsqueeze(1)
                factor = jitter[:, 3:6].gather(1, index)
                matrix, bias, mean = _apply(index, factor, matrix, bias, mean)
            bias = bias + jitter[:, 6:9]
        std = _constant(self.std, rows)
        return matrix / std[:, None], (bias - _constant(self.mean, rows)) / std


def _pixels_per_row(pixels: int, device: torch.device) -> int:
    """How many of an image's `pixels` form a row of the matrix product that maps their colours.

    A product of N × 3 and 3 × 3 keeps a CPU's vector units idle. With eight pixels in a row and the 3 × 3 matrix eight
    times along the diagonal, it takes a quarter of the time, though most of its terms are zero.
    """
    return math.gcd(pixels, 8) if device.type == "cpu" else 1


def _block_diagonal(matrices: Tensor, times: int) -> Tensor:
    """(N, 3, 3) to (N, 3 · times, 3 · times), with the matrix `times` times along the diagonal."""
    blocks = torch.einsum("nij,kl->nkilj", matrices, torch.eye(times, dtype=matrices.dtype, device=matrices.device))
    return blocks.reshape(len(matrices), 3 * times, 3 * times)


def _apply(index: Tensor, factor: Tensor, matrix: Tensor, bias: Tensor, mean: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """One jitter, the one `index` (N, 1) names for each image, put after the affine map (matrix, bias).

    All three blend the current colour x with a target: f·x + (1 - f)·t, with t = 0 for brightness, the mean gray of
    the current image for contrast, and the pixel's own gray for saturation. `mean` is the current mean RGB.
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
    """`values` as a tensor of the type and on the device of `like`; copied there once, not in every step."""
    return _constant_on(values, like.dtype, like.device)


@functools.cache
def _constant_on(values: tuple[object, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=dtype, device=device)
