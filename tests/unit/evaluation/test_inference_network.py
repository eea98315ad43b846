"""BatchNorm folded into convolutions gives the same outputs, and is left where it is no convolution's alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from resnext_train.config import ModelSection
from resnext_train.evaluation.inference_network import inference_network
from resnext_train.models.build_model import build_model


def unsettled(model: nn.Module) -> nn.Module:
    """Give BN layers statistics and weights that matter."""
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low in ((module.weight, 0.5), (module.bias, -0.5), (module.running_var, 0.5)):
                assert tensor is not None
                nn.init.uniform_(tensor, low, low + 1)
            assert module.running_mean is not None
            nn.init.normal_(module.running_mean)
    return model.double()


def outputs(model: nn.Module, size: int) -> Tensor:
    images = torch.randn(2, 3, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        logits: Tensor = model(images)
    return logits


def layers(model: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())


@pytest.mark.parametrize(
    ("section", "size", "left"),
    [
        (ModelSection(arch="resnext14_4x4d"), 64, 0),
        (ModelSection(arch="resnext14_4x4d", form="b"), 64, 0),
        (ModelSection(arch="resnext14_4x4d", form="a"), 64, 4),  # behind the sum of the paths, one a block
        (ModelSection(arch="resnet20"), 32, 0),
        (ModelSection(arch="plain18"), 64, 0),
        (ModelSection(arch="preact_resnet20"), 32, 9),  # before the first convolution of blocks, and the last one
        (ModelSection(arch="torchvision/mobilenet_v3_small"), 64, 0),
    ],
)
def test_folding_changes_nothing_but_speed(section: ModelSection, size: int, left: int) -> None:
    model = unsettled(build_model(section, 5)).train()
    folded = inference_network(model)
    assert layers(folded) == left < layers(model)
    assert model.training
    expected = outputs(model.eval(), size)
    torch.testing.assert_close(outputs(folded, size), expected, rtol=1e-9, atol=1e-9)
    assert expected.std() > 1e-3, "or the comparison would prove little"


class Shared(nn.Module):
    """Uses one convolution twice, and the output of another one twice."""

    def __init__(self) -> None:
        super().__init__()
        self.twice, self.read_twice = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
        self.bn1, self.bn2, self.bn3 = (nn.BatchNorm2d(3) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn1(self.twice(x)) + self.bn2(self.twice(x))
        y = self.read_twice(x)
        z: Tensor = y + self.bn3(y)
        return z


class Untraceable(nn.Module):
    """Asks for a value, so that its calls depend on the images."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.bn(self.conv(x)) if x.sum() > 0 else x
        return y


@pytest.mark.parametrize(("kind", "left"), [(Shared, 3), (Untraceable, 1)])
def test_what_cannot_be_folded_is_left(kind: type[nn.Module], left: int) -> None:
    model = unsettled(kind())
    folded = inference_network(model)
    assert layers(folded) == left
    assert torch.equal(outputs(folded, 8), outputs(model.eval(), 8))
