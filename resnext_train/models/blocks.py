"""Shortcuts, post-activation blocks, and the two-layer block; bottlenecks are in bottleneck_forms.py.

Parameter names equal torchvision's, so weights can be loaded both ways without renaming.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from resnext_train.models.architecture import Shortcut


@dataclass(frozen=True)
class BlockShape:
    """A block's channels, stride, cardinality and shortcut.

    `width` counts the channels of a bottleneck's 3×3 convolution over all groups: C·d.
    """

    inputs: int
    width: int
    outputs: int
    stride: int = 1
    cardinality: int = 1
    shortcut: Shortcut = "B"
    residual: bool = True

    @property
    def changes(self) -> bool:
        """Whether input and output differ in shape."""
        return self.stride != 1 or self.inputs != self.outputs


def conv(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """Return a convolution without bias that keeps height and width at stride 1."""
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False)


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
    projection = conv(shape.inputs, shape.outputs, 1, shape.stride)
    return nn.Sequential(projection, *([nn.BatchNorm2d(shape.outputs)] if norm else []))


class PostActivation(nn.Module):
    """ReLU(F(x) + shortcut(x)), or ReLU(F(x)) without residual (ResNet paper, equations 1 and 2).

    A subclass creates the layers of F, ending with a BN, and then `downsample`, so that the parameters are in
    torchvision's order. Input (N, inputs, H, W); output (N, outputs, H/s, W/s).
    """

    downsample: nn.Module | None

    def __init__(self, shape: BlockShape) -> None:
        super().__init__()
        self.residual = shape.residual
        self.relu = nn.ReLU(inplace=True)

    @abstractmethod
    def transform(self, x: Tensor) -> Tensor:
        """Return F(x)."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.transform(x)
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
        self.conv1 = conv(shape.inputs, shape.outputs, 3, shape.stride)
        self.bn1 = nn.BatchNorm2d(shape.outputs)
        self.conv2 = conv(shape.outputs, shape.outputs, 3)
        self.bn2 = nn.BatchNorm2d(shape.outputs)
        self.downsample = make_shortcut(shape)

    def transform(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        return self.bn2(self.conv2(x))  # type: ignore[no-any-return]
