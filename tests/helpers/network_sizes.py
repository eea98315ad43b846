"""Sizes of networks, computed by hand: parameters and multiply-adds, layer by layer."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any


@dataclass(frozen=True)
class Net:
    """A network as a column of the papers' tables: blocks of each stage, cardinality, width of a group, shortcuts."""

    blocks: tuple[int, ...]
    bottleneck: bool = True
    groups: int = 1
    width: int = 64
    shortcut: str = "B"
    preactivation: bool = False
    blur: bool = False
    """Whether the input of every strided convolution behind the stem is blurred by 3×3 weights for each channel: whole
    before a 3×3 convolution, only where a 1×1 one looks before that."""


def basic(*blocks: int, **options: Any) -> Net:
    return Net(blocks, bottleneck=False, **options)


def of_residual(net: Net, classes: int, pixels: int) -> tuple[int, int]:
    """Parameters and multiply-adds, layer by layer, of Table 1 of both papers and of their CIFAR networks."""
    parameters = multiply_adds = 0

    def convolution(inputs: int, outputs: int, kernel: int, side: int, groups: int = 1, bn: bool = True) -> None:
        nonlocal parameters, multiply_adds
        weights = inputs // groups * outputs * kernel**2
        parameters += weights + (2 * outputs if bn else 0)
        multiply_adds += weights * side**2

    cifar, side = len(net.blocks) == 3, pixels
    inputs = 16 if cifar and not net.bottleneck else 64
    if cifar:
        convolution(3, inputs, 3, side)
    else:
        side = -(-pixels // 2)
        convolution(3, inputs, 7, side)
        side = -(-side // 2)  # max pooling
    stem, after = inputs, not net.preactivation
    for stage, blocks in enumerate(net.blocks):
        first, inner = stem * 2**stage, net.groups * net.width * 2**stage
        outputs = first * 4 if net.bottleneck else first
        for i in range(blocks):
            before, side = side, -(-side // 2) if stage and i == 0 else side
            if net.preactivation and (stage or i):
                parameters += 2 * inputs  # the BN in front of a block; the stem has that of the first
            if net.blur and before != side:
                multiply_adds += 9 * (inner * before**2 + inputs * side**2)
            if net.bottleneck:
                convolution(inputs, inner, 1, before)
                convolution(inner, inner, 3, side, net.groups)
                convolution(inner, outputs, 1, side, bn=after)
            else:
                convolution(inputs, outputs, 3, side)
                convolution(outputs, outputs, 3, side, bn=after)
            if net.shortcut == "C" or (net.shortcut == "B" and (inputs, before) != (outputs, side)):
                convolution(inputs, outputs, 1, side, bn=after)
            inputs = outputs
    if net.preactivation:
        parameters += 2 * inputs  # the BN behind the last block
    return parameters + (inputs + 1) * classes, multiply_adds + inputs * classes


def of_vgg(convolutions: tuple[int, ...], classes: int, pixels: int) -> tuple[int, int]:
    """Parameters and multiply-adds of Table 1 of the VGG paper, with BN behind each convolution, which has a bias."""
    parameters = multiply_adds = 0
    inputs, side = 3, pixels
    for count, outputs in zip(convolutions, (64, 128, 256, 512, 512), strict=True):
        for _ in range(count):
            parameters += (9 * inputs + 1 + 2) * outputs
            multiply_adds += 9 * inputs * outputs * side**2
            inputs = outputs
        side //= 2
    for units, more in pairwise((side**2 * inputs, 4096, 4096, classes)):
        parameters += (units + 1) * more
        multiply_adds += units * more
    return parameters, multiply_adds
