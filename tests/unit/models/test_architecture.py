from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from resnext_train.config import ModelSection
from resnext_train.errors import InputError
from resnext_train.models.architecture import Architecture, architecture_of
from resnext_train.models.blocks import BlockShape
from resnext_train.models.bottleneck_forms import FORMS
from resnext_train.models.build_model import build_model


def parse(name: str, **options: Any) -> Architecture:
    return architecture_of(ModelSection(arch=name, **options))


@pytest.mark.parametrize(
    ("cardinality", "base_width", "inner"),
    [(1, 64, 64), (2, 40, 80), (4, 24, 96), (8, 14, 112), (32, 4, 128)],
)
def test_widths_of_table_2(cardinality: int, base_width: int, inner: int) -> None:
    """ResNeXt paper, Table 2: width of the group convolution, about 70 k parameters in each conv2 block."""
    architecture = parse(f"resnext50_{cardinality}x{base_width}d")
    assert architecture.inner_width(0) == inner
    block = FORMS["c"](BlockShape(256, architecture.inner_width(0), 256, cardinality=cardinality))
    weights = sum(p.numel() for p in block.parameters() if p.ndim > 1)
    assert weights == cardinality * (256 * base_width + 9 * base_width**2 + base_width * 256)  # equation 4
    assert weights == pytest.approx(70_000, rel=0.05)


@pytest.mark.parametrize(
    ("name", "blocks", "expected"),
    [
        ("resnet18", None, ("basic", (2, 2, 2, 2), 1, 64)),
        ("resnet50", None, ("bottleneck", (3, 4, 6, 3), 1, 64)),
        ("resnet152", None, ("bottleneck", (3, 8, 36, 3), 1, 64)),
        ("resnext101_64x4d", None, ("bottleneck", (3, 4, 23, 3), 64, 4)),
        ("wide_resnet50_2", None, ("bottleneck", (3, 4, 6, 3), 1, 128)),
        ("resnext38_16x8d", (3, 3, 3, 3), ("bottleneck", (3, 3, 3, 3), 16, 8)),
    ],
)
def test_names(name: str, blocks: tuple[int, ...] | None, expected: tuple[object, ...]) -> None:
    a = parse(name, blocks=blocks)
    assert (a.block, a.blocks, a.cardinality, a.base_width) == expected


def test_hyper_parameters_replace_those_of_the_name() -> None:
    assert parse("resnext50_32x4d", cardinality=8, base_width=14) == parse("resnext50_8x14d")


@pytest.mark.parametrize(
    ("name", "options", "told"),
    [
        ("resnext50", {}, ("model.arch: ", "'resnext50'")),
        ("resnet50_2", {}, ("model.arch: ", "'resnet50_2'")),
        ("wide_resnet50", {}, ("model.arch: ", "'wide_resnet50'")),
        ("vgg", {}, ("model.arch: ", "'vgg'", "resnext50_32x4d")),
        ("resnet51", {}, ("model.arch: ", " 51 ", " 14, 18, 26, 34, 50, 101, 152, 200;", "model.blocks")),
        ("resnext18_32x4d", {}, ("model.arch: ", " 18 ", " 14, 26, 50, 101, 152, 200;", "model.blocks")),
        ("resnext50_0x4d", {}, ("model.arch: ", "'resnext50_0x4d'")),
        ("resnet050", {}, ("model.arch: ", "'resnet050'")),
        ("resnet50", {"blocks": (1, 1, 1, 1)}, ("model.blocks: ", "[1, 1, 1, 1]", " 10 or 14,", " 50")),
        ("resnet18", {"cardinality": 2}, ("model.arch: ", "resnet18 ", "Figure 4", "model.width")),
        ("plain34", {"stochastic_depth": 0.1}, ("model.stochastic_depth: ", "plain34 ", "model.residual")),
        ("resnet50", {"residual": False, "zero_gamma": True}, ("model.zero_gamma: ", "resnet50 ", "model.residual")),
        ("preact_resnet50", {"zero_gamma": True}, ("model.zero_gamma: ", "preact_resnet50 ", "convolution")),
    ],
)
def test_names_that_mean_nothing(name: str, options: dict[str, Any], told: tuple[str, ...]) -> None:
    with pytest.raises(InputError) as error:
        parse(name, **options)
    assert all(fact in str(error.value) for fact in told), error.value


def test_initial_weights_are_the_papers() -> None:
    """fb.resnet.torch: convolutions N(0, sqrt(2 / (k·k·outputs))), BN 1 and 0 everywhere, classifier's bias 0."""
    model = build_model(ModelSection(arch="resnext26_32x4d"), 1000, seed=3)
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            expected = math.sqrt(2 / (module.kernel_size[0] ** 2 * module.out_channels))
            assert module.weight.std().item() == pytest.approx(expected, rel=0.1), name
            assert abs(module.weight.mean().item()) < 0.1 * expected, name
            assert module.bias is None
        if isinstance(module, nn.BatchNorm2d):
            assert torch.all(module.weight == 1)
            assert torch.all(module.bias == 0)
        if isinstance(module, nn.Linear):
            assert torch.all(module.bias == 0)
            assert module.weight.std().item() == pytest.approx(1 / math.sqrt(3 * 2048), rel=0.05)


def test_initial_weights_follow_from_the_seed_and_leave_the_global_generator_alone() -> None:
    section = ModelSection(arch="resnext14_2x4d")
    torch.manual_seed(7)
    before = torch.get_rng_state()
    first, second, other = (build_model(section, 10, seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(first[k], second[k]) for k in first)
    assert not torch.equal(first["conv1.weight"], other["conv1.weight"])


def test_the_classifier_computes_in_fp32_under_autocast() -> None:
    model = build_model(ModelSection(arch="resnext14_2x4d"), 10).eval()
    beginning = nn.Sequential(*(model.get_submodule(name) for name in ("conv1", "maxpool", "layer1")))
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        features = beginning(torch.randn(2, 3, 32, 32))
        logits = model(torch.randn(2, 3, 32, 32))
    assert features.dtype == torch.bfloat16
    assert logits.dtype == torch.float32
