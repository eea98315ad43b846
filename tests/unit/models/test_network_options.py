"""Blurred strides, stochastic depth and first weights, against timm, torchvision and FFCV's definition."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import stochastic_depth

from helpers.exports import disturb_batch_norm
from resnext_train.config import ModelSection, load_recipe_with_notes
from resnext_train.errors import InputError
from resnext_train.evaluation.inference_network import inference_network
from resnext_train.models.architecture import Form, check_model, check_network, title_of
from resnext_train.models.blocks import PostActivation
from resnext_train.models.bottleneck_forms import convert_form
from resnext_train.models.build_model import build_model
from resnext_train.models.complexity import check_training, measure
from resnext_train.models.preact_blocks import PreActivation
from resnext_train.models.weight_conversion import load_weights

Block = PostActivation | PreActivation


def network(arch: str = "resnext26_4x4d", classes: int = 5, **options: Any) -> nn.Module:
    return build_model(ModelSection(arch=arch, width=0.5, **options), classes, seed=3)


def images(size: int = 48, count: int = 4) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(6))


def blocks_of(model: nn.Module) -> list[Block]:
    return [m for m in model.modules() if isinstance(m, Block)]


def passed(model: nn.Module, size: int = 48, seed: int = 11) -> tuple[Tensor, list[Tensor]]:
    """Logits and gradients of a pass in training in fp64, with the draws of a seed."""
    model = model.double().train()
    torch.manual_seed(seed)
    logits: Tensor = model(images(size).double())
    logits.square().sum().backward()  # type: ignore[no-untyped-call]
    return logits, [p.grad for p in model.parameters() if p.grad is not None]


def assert_same_pass(one: nn.Module, other: nn.Module, size: int = 48) -> None:
    (ours, own), (theirs, their) = passed(one, size), passed(other, size)
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
    assert len(own) == len(their)
    for a, b in zip(own, their, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("arch", ["resnet10", "resnext14_4x4d"])
def test_stochastic_depth_and_zero_gamma_are_timms(arch: str) -> None:
    resnet = pytest.importorskip("timm.models.resnet")
    block = resnet.BasicBlock if arch == "resnet10" else resnet.Bottleneck
    groups = {} if arch == "resnet10" else {"cardinality": 4, "base_width": 4}
    theirs = resnet.ResNet(block, (1, 1, 1, 1), 5, drop_path_rate=0.5, zero_init_last=True, **groups)
    section = ModelSection(arch=arch, blocks=(1, 1, 1, 1), stochastic_depth=0.5, zero_gamma=True)
    ours = build_model(section, 5)
    scales = {k: v for k, v in ours.state_dict().items() if v.ndim == 1 and k.endswith("weight")}
    assert sum(not v.any() for v in scales.values()) == 4
    for name, scale in scales.items():
        assert torch.equal(scale, theirs.state_dict()[name]), name
    theirs.load_state_dict(disturb_batch_norm(ours).state_dict())
    assert_same_pass(ours, theirs)
    torch.testing.assert_close(ours.eval()(images().double()), theirs.eval()(images().double()))


def row_dropped(block: Block, rate: float) -> Callable[[Tensor], Tensor]:
    transform = block.transform
    return lambda x: stochastic_depth(transform(x), rate, "row")


@pytest.mark.parametrize(
    ("arch", "form"),
    [("preact_resnet20", "c"), ("preact_resnet26", "c"), ("resnext26_4x4d", "a"), ("resnext26_4x4d", "b")],
)
def test_stochastic_depth_of_all_blocks_is_torchvisions_by_row(arch: str, form: str) -> None:
    size = 32 if arch == "preact_resnet20" else 48
    ours, theirs = network(arch, form=form, stochastic_depth=0.6), network(arch, form=form)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    blocks = blocks_of(theirs)
    for i, block in enumerate(blocks):
        block.transform = row_dropped(block, 0.6 * i / (len(blocks) - 1))  # type: ignore[method-assign,assignment]
    assert_same_pass(ours, theirs, size)


class FfcvBlur(nn.Module):
    """BlurPoolConv2d of ffcv-imagenet, written out."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv
        taps = torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]]) / 16
        self.register_buffer("blur_filter", taps.repeat(conv.in_channels, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        blurred = F.conv2d(x, self.get_buffer("blur_filter"), padding=1, groups=self.conv.in_channels)
        return self.conv(blurred)  # type: ignore[no-any-return]


def with_blur(module: nn.Module) -> nn.Module:
    """Blur as FFCV's apply_blurpool does: strided convolutions of at least 16 input channels."""
    for name, child in module.named_children():
        if isinstance(child, nn.Conv2d) and max(child.stride) > 1 and child.in_channels >= 16:
            setattr(module, name, FfcvBlur(child))
        else:
            with_blur(child)
    return module


@pytest.mark.parametrize("arch", ["resnet10", "resnext14_4x4d", "preact_resnet20"])
def test_blur_pool_is_ffcvs(arch: str) -> None:
    size, width = (32, 0.5) if arch == "preact_resnet20" else (49, 1)
    section = ModelSection(arch=arch, width=width, shortcut="B", blocks=(3, 3, 3) if size == 32 else (1, 1, 1, 1))
    theirs = with_blur(disturb_batch_norm(build_model(section, 5, seed=8)))
    ours = build_model(section.model_copy(update={"blur_pool": True}), 5)
    assert list(ours.state_dict()) == list(build_model(section, 5).state_dict())
    told = load_weights(ours, theirs.state_dict(), "w.pt")
    assert told == "w.pt: names of FFCV"
    assert_same_pass(ours, theirs, size)
    with pytest.raises(InputError, match=r"blur_filter.*model\.blur_pool=true"):
        load_weights(build_model(section, 5), theirs.state_dict(), "w.pt", section)


def test_blur_pool_in_all_forms_and_folded_is_one_function() -> None:
    options: dict[str, Any] = {"arch": "resnext14_4x4d", "blur_pool": True, "bn_epsilon": 1e-2}
    grouped = disturb_batch_norm(network(**options)).double().eval()
    expected = grouped(images().double())
    forms: tuple[Form, ...] = ("a", "b")
    for form in forms:
        model = network(**options, form=form).double().eval()
        assert not any(b.is_meta for b in model.buffers())
        model.load_state_dict(convert_form(grouped.state_dict(), form, 4))
        torch.testing.assert_close(model(images().double()), expected, rtol=1e-9, atol=1e-9)
    folded = inference_network(grouped)
    assert not [m for m in folded.modules() if isinstance(m, nn.BatchNorm2d)]
    torch.testing.assert_close(folded(images().double()), expected, rtol=1e-9, atol=1e-9)
    for module in grouped.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 1e-5
    assert not torch.allclose(grouped(images().double()), expected, rtol=1e-3), "epsilon is that of the recipe"


def test_blur_pool_costs_what_arithmetic_says() -> None:
    """9 multiply-adds for each blurred number: the 1×1 shortcut's only where it reads, the 3×3's everywhere."""
    plain, blurred = (measure(ModelSection(arch="resnet50", blur_pool=b), 1000, 224) for b in (False, True))
    stages = ((256, 128, 56), (512, 256, 28), (1024, 512, 14))
    added = sum(9 * (inputs * (side // 2) ** 2 + width * side**2) for inputs, width, side in stages)
    assert blurred.multiply_adds - plain.multiply_adds == added
    assert blurred.parameters == plain.parameters
    check_training(ModelSection(arch="resnet50", blur_pool=True, stochastic_depth=0.1, zero_gamma=True), 1000, 224)


def test_batch_norm_has_the_recipes_momentum_and_epsilon_everywhere() -> None:
    for form in ("a", "c"):
        norms = [
            m for m in network(form=form, bn_momentum=0.05, bn_epsilon=1e-3).modules() if isinstance(m, nn.BatchNorm2d)
        ]
        assert {(m.momentum, m.eps) for m in norms} == {(0.05, 1e-3)}


def test_fan_in_is_torchs_kaiming_normal() -> None:
    """The same draws: those of fan-out, scaled by sqrt(outputs / inputs of a group)."""
    options: dict[str, Any] = {"arch": "resnext14_4x4d", "form": "b"}
    ours, papers = (network(**options, conv_init=init) for init in ("fan_in", "fan_out"))
    compared = 0
    for (name, module), other in zip(ours.named_modules(), papers.modules(), strict=True):
        if isinstance(module, nn.Conv2d) and isinstance(other, nn.Conv2d) and ".paths." not in name:
            fans = [nn.init._calculate_fan_in_and_fan_out(module.weight)[i] for i in (0, 1)]
            expected = other.weight * (fans[1] / fans[0]) ** 0.5
            torch.testing.assert_close(module.weight, expected, rtol=1e-5, atol=1e-7)
            compared += fans[0] != fans[1]
    assert compared > 4


@pytest.mark.parametrize("arch", ["torchvision/resnet18", "timm/resnet18"])
def test_other_libraries_networks_take_none_of_it(arch: str) -> None:
    for key, value in {
        "blur_pool": True,
        "stochastic_depth": 0.1,
        "zero_gamma": True,
        "conv_init": "fan_in",
        "bn_momentum": 0.05,
        "bn_epsilon": 1e-3,
    }.items():
        with pytest.raises(InputError, match=f"model.{key}: {arch} "):
            check_model(ModelSection.model_validate({"arch": arch, key: value}))
    loaded = load_recipe_with_notes("smoke", [f"model.arch={arch}", "train.checkpoint_activations=true"])
    with pytest.raises(InputError, match=f"train.checkpoint_activations: {arch} is another library's"):
        check_network(loaded)


def test_changed_options_are_in_the_title() -> None:
    section = ModelSection(arch="resnet50", blur_pool=True, stochastic_depth=0.05, bn_epsilon=1e-5)
    assert title_of(section) == "resnet50, blur_pool True, stochastic_depth 0.05"
