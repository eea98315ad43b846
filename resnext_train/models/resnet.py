"""ResNet and ResNeXt for ImageNet (both papers, Table 1) and CIFAR (ResNet paper, section 4.2; ResNeXt paper, 5.3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from resnext_train.config.fixed_choices import CLASSIFIER_BIAS
from resnext_train.models.architecture import Architecture
from resnext_train.models.blocks import BasicBlock, BlockShape, PostActivation, conv
from resnext_train.models.bottleneck_forms import FORMS
from resnext_train.models.preact_blocks import PreactBasicBlock, PreactBottleneck


class WideLinear(nn.Linear):
    """A linear layer that computes in the precision of its weights, also under autocast."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cuda" if x.is_cuda else "cpu", enabled=False):  # no autocast for "meta"
            return super().forward(x.to(self.weight.dtype))


class ResNet(nn.Module):
    """Stem, three or four stages, global average pooling, linear classifier.

    Input (N, 3, H, W) normalised images; output (N, num_classes) logits. State dict keys and shapes equal those of
    torchvision.models.resnet for the networks that it has. Pre-activation networks have a last BN, `bn2`, after the
    stages, and no BN in a CIFAR stem.

    With `checkpoint_blocks`, training keeps only the inputs of blocks, and computes the rest again in the backward
    pass, with the same draws of stochastic depth. It is no part of the architecture: the result has the same bits.
    """

    def __init__(self, architecture: Architecture, num_classes: int) -> None:
        super().__init__()
        a = architecture
        self.architecture = a
        self.checkpoint_blocks = False
        imagenet = a.stem == "imagenet"
        self.conv1 = conv(3, a.stem_width, 7, stride=2) if imagenet else conv(3, a.stem_width, 3)
        self.bn1 = None if a.preactivation and not imagenet else nn.BatchNorm2d(a.stem_width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1) if imagenet else None
        self.stages = [f"layer{i + 1}" for i in range(len(a.blocks))]
        for i, name in enumerate(self.stages):
            self.add_module(name, _stage(a, i))
        self.bn2 = nn.BatchNorm2d(a.outer_width(len(a.blocks) - 1)) if a.preactivation else None
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = WideLinear(a.outer_width(len(a.blocks) - 1), num_classes)
        initialise(self, a)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        if self.bn1 is not None:
            x = self.relu(self.bn1(x))
        if self.maxpool is not None:
            x = self.maxpool(x)
        for name in self.stages:
            stage = getattr(self, name)
            x = _checkpointed(stage, x) if self.checkpoint_blocks and self.training else stage(x)
        if self.bn2 is not None:
            x = self.relu(self.bn2(x))
        return self.fc(torch.flatten(self.avgpool(x), 1))  # type: ignore[no-any-return]


def _checkpointed(stage: nn.Sequential, x: Tensor) -> Tensor:
    # The second pass updates BatchNorm statistics again. In steps, each pass overwrites them (RunningStatistics).
    for block in stage:
        x = checkpoint(block, x, use_reentrant=False, preserve_rng_state=True)
    return x


def _stage(a: Architecture, stage: int) -> nn.Sequential:
    inputs = a.outer_width(stage - 1) if stage else a.stem_width
    blocks = []
    for i in range(a.blocks[stage]):
        blocks.append(_block(a, stage, i, inputs))
        inputs = a.outer_width(stage)
    return nn.Sequential(*blocks)


def _block(a: Architecture, stage: int, i: int, inputs: int) -> nn.Module:
    shape = BlockShape(
        inputs,
        a.inner_width(stage),
        a.outer_width(stage),
        2 if stage > 0 and i == 0 else 1,
        a.cardinality,
        a.shortcut,
        a.residual,
        a.blur_pool,
        # Grows over all blocks from 0 to the last one's, as timm's ResNet has it.
        a.training.stochastic_depth * (sum(a.blocks[:stage]) + i) / (sum(a.blocks) - 1),
    )
    if a.preactivation:
        kind = PreactBasicBlock if a.block == "basic" else PreactBottleneck
        after_stem = stage == 0 and i == 0 and a.stem == "imagenet"
        return kind(shape, first=i == 0, activate=not after_stem)
    return BasicBlock(shape) if a.block == "basic" else FORMS[a.form](shape)


def initialise(model: nn.Module, a: Architecture) -> None:
    """Initialise as the papers' code does (fb.resnet.torch): convolutions N(0, 2 / (k·k·outputs)), biases 0.

    BN keeps scale 1 and shift 0, also in the last BN of a block, unless `a` says otherwise. The classifier's weights
    keep nn.Linear's uniform distribution in ± 1/sqrt(inputs).
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode=a.training.conv_init, nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.constant_(module.bias, CLASSIFIER_BIAS)
        elif isinstance(module, nn.BatchNorm2d):
            module.eps, module.momentum = a.bn_epsilon, a.training.bn_momentum
        elif isinstance(module, PostActivation) and a.training.zero_gamma:
            nn.init.zeros_(module.get_parameter("bn2.weight" if isinstance(module, BasicBlock) else "bn3.weight"))
