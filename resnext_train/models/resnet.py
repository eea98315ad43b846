"""ResNet and ResNeXt for ImageNet (ResNet paper, Table 1; ResNeXt paper, Table 1)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from resnext_train.models.architecture import Architecture
from resnext_train.models.blocks import BasicBlock, Bottleneck, conv


class ResNet(nn.Module):
    """Stem, four stages, global average pooling, linear classifier.

    Input (N, 3, H, W) normalised images; output (N, num_classes) logits. The classifier computes in the precision of
    its weights even under autocast. State dict keys and shapes equal those of torchvision.models.resnet.
    """

    def __init__(self, architecture: Architecture, num_classes: int) -> None:
        super().__init__()
        self.conv1 = conv(3, 64, 7, stride=2)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = _stage(architecture, 0, 64)
        self.layer2 = _stage(architecture, 1, architecture.outer_width(0))
        self.layer3 = _stage(architecture, 2, architecture.outer_width(1))
        self.layer4 = _stage(architecture, 3, architecture.outer_width(2))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(architecture.outer_width(3), num_classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, num_classes)."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        x = torch.flatten(self.avgpool(x), 1)
        with torch.autocast("cuda" if x.is_cuda else "cpu", enabled=False):  # autocast knows no meta device
            return self.fc(x.to(self.fc.weight.dtype))  # type: ignore[no-any-return]


def _stage(architecture: Architecture, stage: int, inputs: int) -> nn.Sequential:
    outputs = architecture.outer_width(stage)
    blocks: list[nn.Module] = []
    for i in range(architecture.blocks[stage]):
        stride = 2 if stage > 0 and i == 0 else 1
        if architecture.block == "basic":
            blocks.append(BasicBlock(inputs, outputs, stride))
        else:
            width = architecture.inner_width(stage)
            blocks.append(Bottleneck(inputs, width, outputs, stride, architecture.cardinality))
        inputs = outputs
    return nn.Sequential(*blocks)


def initialise(model: nn.Module) -> None:
    """Initial weights of the papers' code (fb.resnet.torch): convolutions N(0, 2 / (k·k·outputs)), biases 0.

    BN starts at scale 1 and shift 0 everywhere, also in the last BN of a block; the classifier's weights are uniform
    in ± 1/sqrt(inputs), which is nn.Linear's own.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)
