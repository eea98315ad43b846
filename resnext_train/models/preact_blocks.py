"""Pre-activation blocks: BN and ReLU come before each convolution (arXiv 1603.05027, Figure 4e).

As in the authors' code (fb.resnet.torch, preresnet.lua): in the first block of a stage the shortcut starts after the
first BN and ReLU, elsewhere before them; projections have no BN; after a stem that ends in BN and ReLU, the first block
does not start with them.
"""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor, nn

from resnext_train.models.blocks import BlockShape, conv, drop_images, make_shortcut


class PreActivation(nn.Module):
    """F(x) + shortcut, without an activation after it.

    `first`: this is a stage's first block, whose shortcut starts after BN and ReLU. `activate`: the block starts with
    BN and ReLU. Input (N, inputs, H, W); output (N, outputs, H/s, W/s).
    """

    downsample: nn.Module | None

    def __init__(self, shape: BlockShape, first: bool, activate: bool) -> None:
        super().__init__()
        self.residual, self.first, self.drop_rate = shape.residual, first, shape.drop_rate
        self.relu = nn.ReLU(inplace=True)
        self.bn1 = nn.BatchNorm2d(shape.inputs) if activate else None

    @abstractmethod
    def transform(self, x: Tensor) -> Tensor:
        """Return F without its first BN and ReLU."""

    def forward(self, x: Tensor) -> Tensor:
        active = x if self.bn1 is None else self.relu(self.bn1(x))
        y = self.transform(active)
        if self.drop_rate and self.training:
            y = drop_images(y, self.drop_rate)
        if not self.residual:
            return y
        start = active if self.first else x
        return y + (start if self.downsample is None else self.downsample(start))


class PreactBasicBlock(PreActivation):
    """Two 3×3 convolutions; `width` is not used."""

    def __init__(self, shape: BlockShape, first: bool, activate: bool) -> None:
        super().__init__(shape, first, activate)
        self.conv1 = conv(shape.inputs, shape.outputs, 3, shape.stride, blur=shape.blurs(shape.inputs))
        self.bn2 = nn.BatchNorm2d(shape.outputs)
        self.conv2 = conv(shape.outputs, shape.outputs, 3)
        self.downsample = make_shortcut(shape, norm=False)

    def transform(self, x: Tensor) -> Tensor:
        return self.conv2(self.relu(self.bn2(self.conv1(x))))  # type: ignore[no-any-return]


class PreactBottleneck(PreActivation):
    """1×1, grouped 3×3 with the stride, 1×1."""

    def __init__(self, shape: BlockShape, first: bool, activate: bool) -> None:
        super().__init__(shape, first, activate)
        self.conv1 = conv(shape.inputs, shape.width, 1)
        self.bn2 = nn.BatchNorm2d(shape.width)
        self.conv2 = conv(shape.width, shape.width, 3, shape.stride, shape.cardinality, shape.blurs(shape.width))
        self.bn3 = nn.BatchNorm2d(shape.width)
        self.conv3 = conv(shape.width, shape.outputs, 1)
        self.downsample = make_shortcut(shape, norm=False)

    def transform(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn2(self.conv1(x)))
        return self.conv3(self.relu(self.bn3(self.conv2(x))))  # type: ignore[no-any-return]
