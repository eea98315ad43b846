"""Plain, pre-activation and CIFAR networks and the shortcuts, against other people's code and the papers' tables."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from resnext_train.config import ModelSection
from resnext_train.models.architecture import Shortcut
from resnext_train.models.blocks import BlockShape, make_shortcut
from resnext_train.models.build_model import build_model


def model_of(arch: str, classes: int = 10, **options: Any) -> nn.Module:
    return build_model(ModelSection(arch=arch, **options), classes, seed=2).double()


def conv_bn(x: Tensor, w: dict[str, Tensor], conv: str, bn: str, stride: int = 1) -> Tensor:
    """Convolution and BN with batch statistics, from a state dict."""
    weight = w[f"{conv}.weight"]
    x = F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)
    return F.batch_norm(x, None, None, w[f"{bn}.weight"], w[f"{bn}.bias"], training=True)


def batch_relu(x: Tensor, w: dict[str, Tensor], bn: str) -> Tensor:
    return F.relu(F.batch_norm(x, None, None, w[f"{bn}.weight"], w[f"{bn}.bias"], training=True))


def images(size: int, count: int = 3) -> Tensor:
    return torch.randn(count, 3, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(4))


def head(x: Tensor, w: dict[str, Tensor]) -> Tensor:
    return F.linear(x.mean((2, 3)), w["fc.weight"], w["fc.bias"])


@pytest.mark.parametrize("arch", ["resnet20", "plain20"])
def test_cifar_networks_are_those_of_the_paper(arch: str) -> None:
    """ResNet paper, section 4.2, written out: 3×3 stem, 3 × 3 blocks of 16, 32, 64 maps, identity shortcuts (A)."""
    model = model_of(arch)
    w = dict(model.state_dict())
    x = F.relu(conv_bn(images(32), w, "conv1", "bn1"))
    for stage, width in enumerate((16, 32, 64), 1):
        for block in range(3):
            name, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            y = F.relu(conv_bn(x, w, f"{name}.conv1", f"{name}.bn1", stride))
            y = conv_bn(y, w, f"{name}.conv2", f"{name}.bn2")
            if arch == "resnet20":
                short = torch.zeros_like(y)
                before = (width - x.shape[1]) // 2
                short[:, before : before + x.shape[1]] = x[:, :, ::stride, ::stride]
                y = y + short
            x = F.relu(y)
    assert x.shape[1:] == (64, 8, 8)
    torch.testing.assert_close(model.train()(images(32)), head(x, w), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("arch", "blocks"), [("preact_resnet26", (2, 2, 2, 2)), ("preact_resnet20", (3, 3, 3))])
def test_pre_activation_is_that_of_its_authors_code(arch: str, blocks: tuple[int, ...]) -> None:
    """fb.resnet.torch, preresnet.lua, written out: where BN and ReLU stand, and where shortcuts start."""
    size = 64 if len(blocks) == 4 else 32
    model = model_of(arch, shortcut="B")
    w = dict(model.state_dict())
    if len(blocks) == 4:
        x = F.relu(conv_bn(images(size), w, "conv1", "bn1", 2))
        x = F.max_pool2d(x, 3, 2, 1)
    else:
        x = F.conv2d(images(size), w["conv1.weight"], padding=1)
    for stage, count in enumerate(blocks, 1):
        for block in range(count):
            name, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            without = len(blocks) == 4 and stage == 1 and block == 0
            active = x if without else batch_relu(x, w, f"{name}.bn1")
            start = active if block == 0 else x
            if f"{name}.downsample.0.weight" in w:
                assert block == 0
                start = F.conv2d(start, w[f"{name}.downsample.0.weight"], stride=stride)
            if f"{name}.conv3.weight" in w:
                y = F.conv2d(active, w[f"{name}.conv1.weight"])
                y = F.conv2d(batch_relu(y, w, f"{name}.bn2"), w[f"{name}.conv2.weight"], stride=stride, padding=1)
                y = F.conv2d(batch_relu(y, w, f"{name}.bn3"), w[f"{name}.conv3.weight"])
            else:
                y = F.conv2d(active, w[f"{name}.conv1.weight"], stride=stride, padding=1)
                y = F.conv2d(batch_relu(y, w, f"{name}.bn2"), w[f"{name}.conv2.weight"], padding=1)
            x = y + start
    x = batch_relu(x, w, "bn2")
    torch.testing.assert_close(model.train()(images(size)), head(x, w), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("arch", ["resnet18", "resnext26_4x4d"])
def test_without_residual_a_block_is_its_layers_alone(arch: str) -> None:
    """The ablation of both papers: torchvision's block, whose shortcut is taken away from its sum."""
    model = model_of(arch, residual=False)
    assert not [k for k in model.state_dict() if "downsample" in k]
    w = dict(model.state_dict())
    x = F.max_pool2d(F.relu(conv_bn(images(40), w, "conv1", "bn1", 2)), 3, 2, 1)
    for stage in range(1, 5):
        for block in range(2):
            name, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            if arch == "resnet18":
                x = F.relu(conv_bn(x, w, f"{name}.conv1", f"{name}.bn1", stride))
                x = F.relu(conv_bn(x, w, f"{name}.conv2", f"{name}.bn2"))
                continue
            x = F.relu(conv_bn(x, w, f"{name}.conv1", f"{name}.bn1"))
            x = F.conv2d(x, w[f"{name}.conv2.weight"], stride=stride, padding=1, groups=4)
            x = F.relu(batch_relu(x, w, f"{name}.bn2"))
            x = F.relu(conv_bn(x, w, f"{name}.conv3", f"{name}.bn3"))
    torch.testing.assert_close(model.train()(images(40)), head(x, w), rtol=1e-9, atol=1e-9)


def test_plain_is_resnet_without_shortcuts() -> None:
    plain, without = model_of("plain34"), model_of("resnet34", residual=False)
    assert list(plain.state_dict()) == list(without.state_dict())
    weights = torchvision.models.resnet34(num_classes=10).state_dict()
    own = {k for k in weights if "downsample" not in k}
    assert set(plain.state_dict()) == own, "as many layers of the same shapes as its residual counterpart"


@pytest.mark.parametrize("kind", ["A", "B", "C"])
def test_shortcuts_a_b_and_c(kind: Shortcut) -> None:
    """ResNet paper, section 4.1: A has no parameters, B projects where the shape changes, C everywhere."""
    changing = make_shortcut(BlockShape(3, 3, 8, 2, shortcut=kind))
    keeping = make_shortcut(BlockShape(3, 3, 3, 1, shortcut=kind))
    assert changing is not None
    x = images(6)
    if kind == "A":
        expected = torch.zeros(3, 8, 3, 3, dtype=torch.float64)
        expected[:, 2:5] = x[:, :, ::2, ::2]
        assert torch.equal(changing(x), expected)
    else:
        w = {f"downsample.{k}": v for k, v in changing.double().state_dict().items()}
        torch.testing.assert_close(changing(x), conv_bn(x, w, "downsample.0", "downsample.1", 2))
    if kind == "C":
        assert keeping is not None
        w = {f"downsample.{k}": v for k, v in keeping.double().state_dict().items()}
        torch.testing.assert_close(keeping(x), conv_bn(x, w, "downsample.0", "downsample.1"))
    else:
        assert keeping is None


def test_resnet_34_of_all_shortcuts_has_the_parameters_that_arithmetic_gives() -> None:
    """ResNet paper, Table 3: B adds three projections to A, C one to each of the 16 blocks."""
    sizes = {s: sum(p.numel() for p in model_of("resnet34", shortcut=s).parameters()) for s in "ABC"}
    projections = sum(i * o + 2 * o for i, o in ((64, 128), (128, 256), (256, 512)))
    assert sizes["B"] - sizes["A"] == projections
    kept = sum(n * (w * w + 2 * w) for n, w in ((3, 64), (3, 128), (5, 256), (2, 512)))
    assert sizes["C"] - sizes["B"] == kept


def test_width_multiplies_stem_and_stages() -> None:
    model = model_of("resnext26_32x4d", width=1.5)
    assert model.get_submodule("conv1").weight.shape == (96, 3, 7, 7)
    assert model.get_submodule("layer1.0.conv2").weight.shape == (32 * 6, 6, 3, 3)
    assert model.get_submodule("fc").weight.shape == (10, 3072)


def test_a_cifar_stem_keeps_the_pixels_of_an_imagenet_network() -> None:
    model = model_of("resnet18", stem="cifar")
    features: dict[str, tuple[int, ...]] = {}
    model.get_submodule("layer4").register_forward_hook(lambda *a: features.update(out=tuple(a[2].shape)))
    model(images(32))
    assert features["out"] == (3, 512, 4, 4)
