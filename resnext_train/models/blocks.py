"""Shortcuts, post-activation blocks, and the two-layer block; bottlenecks are in bottleneck_forms.py.

Parameter names equal torchvision's, so weights can be loaded both ways without renaming.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resnext_train.models.architecture import Shortcut


@dataclass(frozen=True)
class BlockShape:
    """A block's channels, stride, cardinality and shortcut, and what it does beyond them.

    `width` counts the channels of a bottleneck's 3×3 convolution over all groups: C·d. `blur_pool`: see
    `Architecture`. `drop_rate` is the probability with which an image skips F(x) in training.
    """

    inputs: int
    width: int
    outputs: int
    stride: int = 1
    cardinality: int = 1
    shortcut: Shortcut = "B"
    residual: bool = True
    blur_pool: bool = False
    drop_rate: float = 0.0

    @property
    def changes(self) -> bool:
        """Whether input and output differ in shape."""
        return self.stride != 1 or self.inputs != self.outputs

    def blurs(self, channels: int) -> bool:
        """Return whether the block's strided convolution of `channels` inputs, over all paths, has them blurred."""
        return self.blur_pool and self.stride > 1 and channels >= _LEAST_BLURRED


_LEAST_BLURRED = 16
"""Input channels of the narrowest convolution that is blurred, as in FFCV."""


class BlurPoolConv2d(nn.Conv2d):
    """A strided convolution without bias whose input is blurred by [1, 2, 1] / 4 in both directions, with zeros around.

    As FFCV's BlurPoolConv2d (ffcv-imagenet, train_imagenet.py) for BlurPool (arXiv 1904.11486). Its state dict is that
    of the convolution.
    """

    blur_filter: Tensor

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, groups: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
        self.make_filter()

    def make_filter(self) -> None:
        """Make the filter, (inputs, 1, 3, 3), on the current default device."""
        line = torch.tensor([1.0, 2.0, 1.0]) / 4
        blur_filter = torch.outer(line, line).repeat(self.in_channels, 1, 1, 1)
        self.register_buffer("blur_filter", blur_filter, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        # A 1×1 convolution reads one pixel of each stride × stride: only those are blurred.
        early = self.kernel_size == (1, 1)
        x = F.conv2d(x, self.blur_filter, None, self.stride if early else 1, padding=1, groups=self.in_channels)
        return F.conv2d(x, self.weight, self.bias, 1 if early else self.stride, self.padding, groups=self.groups)


def conv(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, blur: bool = False) -> nn.Conv2d:
    """Return a convolution without bias that keeps height and width at stride 1; with `blur` its input is blurred."""
    if blur:
        return BlurPoolConv2d(inputs, outputs, kernel, stride, groups)
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False)


def drop_images(branch: Tensor, rate: float) -> Tensor:
    """Set F(x) of each image to 0 with probability `rate`, and divide those that are kept by 1 - `rate`.

    Stochastic depth (arXiv 1603.09382) by image, with the draws of timm's drop_path and torchvision's stochastic_depth
    ("row"), from torch's generator of the device.
    """
    kept = branch.new_empty(len(branch), 1, 1, 1).bernoulli_(1 - rate)
    return branch * kept.div_(1 - rate)


class PaddedShortcut(nn.Module):
    """Shortcut A (ResNet paper, section 3.3): every stride-th pixel, and zeros for the new channels; no parameters.

    The zeros are on both sides of the channels, as in the usual CIFAR ports; the papers' Torch code appends them all.
    The networks differ only in the order of channels.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        before = (outputs - inputs) // 2
        self.stride, self.padding = stride, (before, outputs - inputs - before)

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, *self.padding))


def make_shortcut(shape: BlockShape, norm: bool = True) -> nn.Module | None:
    """Return shortcut A, B or C of the ResNet paper, section 4.1; None means identity, or no shortcut at all.

    A projection is a 1×1 convolution and, with `norm`, a BN; pre-activation blocks have projections without BN.
    """
    if not shape.residual or not (shape.changes or shape.shortcut == "C"):
        return None
    if shape.shortcut == "A":
        return PaddedShortcut(shape.inputs, shape.outputs, shape.stride)
    projection = conv(shape.inputs, shape.outputs, 1, shape.stride, blur=shape.blurs(shape.inputs))
    return nn.Sequential(projection, *([nn.BatchNorm2d(shape.outputs)] if norm else []))


class PostActivation(nn.Module):
    """ReLU(F(x) + shortcut(x)), or ReLU(F(x)) without residual (ResNet paper, equations 1 and 2).

    A subclass creates the layers of F, ending with a BN, and then `downsample`, so that the parameters are in
    torchvision's order. Input (N, inputs, H, W); output (N, outputs, H/s, W/s).
    """

    downsample: nn.Module | None

    def __init__(self, shape: BlockShape) -> None:
        super().__init__()
        self.residual, self.drop_rate = shape.residual, shape.drop_rate
        self.relu = nn.ReLU(inplace=True)

    @abstractmethod
    def transform(self, x: Tensor) -> Tensor:
        """Return F(x)."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.transform(x)
        if self.drop_rate and self.training:
            y = drop_images(y, self.drop_rate)
        if self.residual:
            y = y + (x if self.downsample is None else self.downsample(x))
        return self.relu(y)  # type: ignore[no-any-return]


class BasicBlock(PostActivation):
    """Two 3×3 convolutions (ResNet paper, Figure 5 left).

    It has no cardinality: C paths of two layers whose outputs are summed are one dense block of width C·d (ResNeXt
    paper, Figure 4), because the second layer sums over all channels of all paths anyway. `width` is not used.
    """

    def __init__(self, shape: BlockShape) -> None:
        super().__init__(shape)
        self.conv1 = conv(shape.inputs, shape.outputs, 3, shape.stride, blur=shape.blurs(shape.inputs))
        self.bn1 = nn.BatchNorm2d(shape.outputs)
        self.conv2 = conv(shape.outputs, shape.outputs, 3)
        self.bn2 = nn.BatchNorm2d(shape.outputs)
        self.downsample = make_shortcut(shape)

    def transform(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        return self.bn2(self.conv2(x))  # type: ignore[no-any-return]
