"""From the recipe's model section to a network."""

from __future__ import annotations

import torch
from torch import nn

from resnext_train.config import ModelSection
from resnext_train.models.architecture import architecture_of
from resnext_train.models.resnet import ResNet


def build_model(section: ModelSection, num_classes: int, seed: int = 0) -> nn.Module:
    """A freshly initialised network on the current default device; its weights are a function of `seed`.

    Raises:
        InputError: an unknown network name or hyper-parameters that do not fit it.
    """
    architecture = architecture_of(section)
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        return ResNet(architecture, num_classes)
