"""Weights of other people's networks give the same outputs in ours. The networks here are written as theirs are."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import safetensors.torch
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from resnext_train.checkpoint.checkpoint_file import load_file
from resnext_train.config import ModelSection
from resnext_train.errors import InputError
from resnext_train.models.build_model import build_model, build_on_meta
from resnext_train.models.weight_conversion import classes_in, find_state_dict, load_weights


def randomised(model: nn.Module) -> nn.Module:
    """Weights and running statistics that are not 0 or 1, so that no mistake hides behind them."""
    g = torch.Generator().manual_seed(3)
    for name, tensor in model.state_dict().items():
        if tensor.ndim > 1:
            tensor.copy_(torch.randn(tensor.shape, generator=g) / tensor[0].numel() ** 0.5)
        elif tensor.ndim == 1:
            tensor.copy_(torch.rand(tensor.shape, generator=g) + (0.5 if not name.endswith("mean") else 0.0))
    return model.eval()


def same_outputs(theirs: nn.Module, ours: nn.Module, size: int, turned: bool = False) -> None:
    """`turned`: theirs sees blue, green, red."""
    images = torch.randn(2, 3, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        expected = theirs.double()(images.flip(1) if turned else images)
        actual = ours.double().eval()(images)
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)


class PortBlock(nn.Module):
    """A block of the widespread CIFAR ports: shortcut A as a function without parameters, or B as `shortcut`."""

    def __init__(self, inputs: int, outputs: int, stride: int, option: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        self.pad = outputs // 4 if stride != 1 and option == "A" else 0
        if stride != 1 and option == "B":
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        short = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.pad, self.pad)) if self.pad else self.shortcut(x)
        return F.relu(y + short)


class Port(nn.Module):
    """A CIFAR port: conv1, bn1, layer1 to layer3, linear."""

    def __init__(self, n: int, option: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        for stage, (inputs, outputs) in enumerate(((16, 16), (16, 32), (32, 64)), 1):
            first = PortBlock(inputs, outputs, 1 if stage == 1 else 2, option)
            rest = [PortBlock(outputs, outputs, 1, option) for _ in range(n - 1)]
            self.add_module(f"layer{stage}", nn.Sequential(first, *rest))
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        for name in ("layer1", "layer2", "layer3"):
            x = self.get_submodule(name)(x)
        logits: Tensor = self.linear(F.avg_pool2d(x, x.shape[-1]).flatten(1))
        return logits


@pytest.mark.parametrize("option", ["A", "B"])
def test_cifar_ports(option: Literal["A", "B"]) -> None:
    theirs = randomised(Port(3, option))
    ours = build_model(ModelSection(arch="resnet20", shortcut=option), 10)
    told = load_weights(ours, theirs.state_dict(), "file")
    assert told.startswith("file: ")
    assert "CIFAR" in told
    same_outputs(theirs, ours, 32)


def pycls_names(stem: str, first: int, blocks: tuple[int, ...], letters: str, width: int) -> nn.Module:
    """A network with pycls's names: stem.conv, s1.b1.f.a, ...; older files call the stem s1 and start at s2."""
    network = nn.Module()

    def put(name: str, module: nn.Module) -> None:
        parent = network
        *folders, leaf = name.split(".")
        for folder in folders:
            if not hasattr(parent, folder):
                parent.add_module(folder, nn.Module())
            parent = parent.get_submodule(folder)
        parent.add_module(leaf, module)

    imagenet, inputs = len(blocks) == 4, 64 if len(blocks) == 4 else 16
    put(
        f"{stem}.conv", nn.Conv2d(3, inputs, 7, 2, 3, bias=False) if imagenet else nn.Conv2d(3, 16, 3, 1, 1, bias=False)
    )
    put(f"{stem}.bn", nn.BatchNorm2d(inputs))
    for stage, count in enumerate(blocks):
        base = (64 if imagenet else 16) * 2**stage
        outputs = base * (4 if letters == "abc" else 1)
        for block in range(count):
            name, stride = f"s{stage + first}.b{block + 1}", 2 if stage and not block else 1
            if inputs != outputs or stride != 1:
                put(f"{name}.proj", nn.Conv2d(inputs, outputs, 1, stride, bias=False))
                put(f"{name}.bn", nn.BatchNorm2d(outputs))
            inner = width * 2**stage * 32
            shapes = {
                "ab": [(inputs, base, 3, stride, 1), (base, base, 3, 1, 1)],
                "abc": [(inputs, inner, 1, 1, 1), (inner, inner, 3, stride, 32), (inner, outputs, 1, 1, 1)],
            }[letters]
            for letter, (i, o, k, s, g) in zip(letters, shapes, strict=True):
                put(f"{name}.f.{letter}", nn.Conv2d(i, o, k, s, k // 2, groups=g, bias=False))
                put(f"{name}.f.{letter}_bn", nn.BatchNorm2d(o))
            inputs = outputs
    put("head.fc", nn.Linear(inputs, 10))

    def forward(x: Tensor) -> Tensor:
        part = network.get_submodule
        x = F.relu(part(f"{stem}.bn")(part(f"{stem}.conv")(x)))
        x = F.max_pool2d(x, 3, 2, 1) if imagenet else x
        for stage, count in enumerate(blocks):
            for block in range(count):
                name, y = f"s{stage + first}.b{block + 1}", x
                for letter in letters:
                    y = part(f"{name}.f.{letter}_bn")(part(f"{name}.f.{letter}")(y))
                    y = y if letter == letters[-1] else F.relu(y)
                projected = hasattr(part(name), "proj")
                x = F.relu(y + (part(f"{name}.bn")(part(f"{name}.proj")(x)) if projected else x))
        logits: Tensor = part("head.fc")(x.mean((2, 3)))
        return logits

    network.forward = forward
    return network


@pytest.mark.parametrize(("stem", "first"), [("stem", 1), ("s1", 2)])
def test_pycls_for_imagenet_sees_blue_first(stem: str, first: int) -> None:
    theirs = randomised(pycls_names(stem, first, (1, 1, 1, 1), "abc", 4))
    ours = build_model(ModelSection(arch="resnext14_32x4d"), 10)
    told = load_weights(ours, theirs.state_dict(), "file")
    assert "pycls" in told
    assert "blue, green, red" in told
    same_outputs(theirs, ours, 64, turned=True)


def test_pycls_for_cifar() -> None:
    theirs = randomised(pycls_names("stem", 1, (3, 3, 3), "ab", 0))
    ours = build_model(ModelSection(arch="resnet20", shortcut="B"), 10)
    told = load_weights(ours, theirs.state_dict(), "file")
    assert "pycls" in told
    assert "blue" not in told
    same_outputs(theirs, ours, 32)


@pytest.mark.parametrize("name", ["resnet18", "resnet26", "resnext50_32x4d"])
def test_timm(name: str) -> None:
    timm = pytest.importorskip("timm")
    theirs = randomised(timm.create_model(name, num_classes=7))
    ours = build_model(ModelSection(arch=name), 7)
    assert "timm" in load_weights(ours, theirs.state_dict(), "file")
    same_outputs(theirs, ours, 32)


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model", "model_state", "net"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod."])
def test_state_dicts_are_found_under_wrappers_and_prefixes(wrapper: str | None, prefix: str) -> None:
    weights = torchvision.models.resnet18(num_classes=7).state_dict()
    content: object = {prefix + k: v for k, v in weights.items()}
    content = {wrapper: content, "epoch": 3} if wrapper else content
    model = build_model(ModelSection(arch="resnet18"), 7)
    load_weights(model, find_state_dict(content, "file"), "file")
    assert all(torch.equal(v, weights[k]) for k, v in model.state_dict().items())


def test_files_from_before_batch_counters() -> None:
    """torchvision's first published files have no num_batches_tracked."""
    weights = {k: v for k, v in torchvision.models.resnet18().state_dict().items() if "num_batches" not in k}
    model = build_model(ModelSection(arch="resnet18"), 1000)
    load_weights(model, dict(weights), "file")
    assert torch.equal(model.state_dict()["layer4.1.bn2.weight"], weights["layer4.1.bn2.weight"])


@pytest.mark.parametrize("ending", [".pth", ".th", ".pt", ".safetensors", "legacy.pth", ".SAFETENSORS", ".bin"])
def test_every_kind_of_file(ending: str, tmp_path: Path) -> None:
    weights = torchvision.models.resnet18(num_classes=7).state_dict()
    path = tmp_path / f"file{ending}"
    content = {"model": weights, "args": argparse.Namespace(lr=0.1), "best": np.float64(3.5), "epoch": 3}
    if ending.lower() in (".safetensors", ".bin"):
        safetensors.torch.save_file(weights, path)
    else:
        torch.save(content, path, _use_new_zipfile_serialization="legacy" not in ending)
    found = find_state_dict(load_file(path), str(path))
    assert found.keys() == weights.keys()
    assert all(torch.equal(found[k], weights[k]) for k in weights)


def test_our_own_paths_load_into_the_grouped_form() -> None:
    apart = build_model(ModelSection(arch="resnext14_4x8d", form="b"), 7, seed=1)
    grouped = build_model(ModelSection(arch="resnext14_4x8d"), 7, seed=2)
    assert "paths" in load_weights(grouped, apart.state_dict(), "file")
    same_outputs(apart.eval(), grouped, 48)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arch", "layers"),
    [("resnet18", "fc"), ("torchvision/mobilenet_v3_small", "classifier.3"), ("torchvision/googlenet", "aux1.fc2")],
)
def test_another_number_of_classes_gets_a_new_classifier(arch: str, layers: str) -> None:
    section = ModelSection(arch=arch)
    with torch.device("meta"):
        shapes = build_model(section, 9).state_dict()
    weights = {k: torch.rand(v.shape) for k, v in shapes.items()}
    model = build_model(section, 7)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    told = load_weights(model, weights, "file", section, "fitting")
    assert re.search(rf"\b{re.escape(layers)}[, ].* 9 .* 7 ", told)
    for name, tensor in model.state_dict().items():
        expected = before if weights[name].shape != tensor.shape else weights
        assert torch.equal(tensor, expected[name].to(tensor.dtype)), name
    with pytest.raises(InputError, match=r"\(9, .*\(7, "):
        load_weights(model, weights, "file")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("where", "name", "classes", "told"),
    [
        ("/models/resnet26d_a1.pth", "resnet26d", 7, "timm/resnet26d"),
        ("file", "resnet26t", 7, "timm/resnet26t"),
        ("mobilenetv3_small_100.pth", "mobilenetv3_small_100", 3, "timm/mobilenetv3_small_100"),
    ],
)
def test_weights_that_fit_a_network_of_timm_are_told_so(where: str, name: str, classes: int, told: str) -> None:
    """By the file's name, or else among the ResNets of the recipe's depth."""
    timm = pytest.importorskip("timm")
    weights = timm.create_model(name, num_classes=classes).state_dict()
    section = ModelSection(arch="resnet26")
    with pytest.raises(InputError, match=rf"model\.arch={told}$"):
        load_weights(build_model(section, 7), weights, where, section, "fitting")
    odd = {"stem.0.weight": torch.zeros(1)}
    with pytest.raises(InputError, match=r"does not fit .*stem\.0\.weight$"):
        load_weights(build_model(section, 7), odd, "convnext_tiny/levit_128.pth", section, "fitting")
    del weights["conv1.weight" if "conv1.weight" in weights else next(iter(weights))]
    with pytest.raises(InputError) as error:
        load_weights(build_model(section, 7), weights, where, section, "fitting")
    assert "timm/" not in str(error.value)


@pytest.mark.slow
def test_a_new_classifier_excuses_no_other_mismatch() -> None:
    with torch.device("meta"):  # names and shapes are enough
        weights = torchvision.models.resnet34(num_classes=9).state_dict()
        wide = torchvision.models.wide_resnet50_2(num_classes=9).state_dict()
    section = ModelSection(arch="resnet18")
    with pytest.raises(InputError, match=r"unknown layer1\.2\."):
        load_weights(build_model(section, 7), weights, "file", section, "fitting")
    section = ModelSection(arch="resnet50")
    with pytest.raises(InputError, match=r"has layer1\.0\.conv1\.weight \(128, 64, 1, 1\) .*\(64, 64, 1, 1\)"):
        load_weights(build_model(section, 7), wide, "file", section, "fitting")


def test_a_classifier_of_other_classes_can_be_left_out_even_if_they_are_as_many() -> None:
    section = ModelSection(arch="resnet18")
    weights = build_model(section, 7, seed=1).state_dict()
    model = build_model(section, 7, seed=2)
    own = model.state_dict()["fc.weight"].clone()
    told = load_weights(model, weights, "file", section, "new", "a checkpoint")
    assert re.search(r"^file: a checkpoint; .*\bfc .*\b7 ", told)
    assert torch.equal(model.state_dict()["fc.weight"], own)
    assert torch.equal(model.state_dict()["conv1.weight"], weights["conv1.weight"])


def test_auxiliary_classifiers_may_be_absent_but_not_by_halves() -> None:
    """torchvision's published GoogLeNet has lost them."""
    section = ModelSection(arch="torchvision/googlenet")
    weights = dict(torchvision.models.googlenet(num_classes=7, aux_logits=False, init_weights=False).state_dict())
    model = build_model(section, 7)
    told = load_weights(model, weights, "file", section)
    assert "auxiliary" in told
    assert torch.equal(model.state_dict()["fc.weight"], weights["fc.weight"])
    half = {k: v for k, v in model.state_dict().items() if not k.startswith("aux2.")}
    with pytest.raises(InputError, match=r"lacks aux2\.conv\.conv\.weight"):
        load_weights(model, half, "file", section)


@pytest.mark.parametrize("arch", ["resnet18", "torchvision/squeezenet1_1", "torchvision/inception_v3"])
def test_the_classes_of_a_file_are_counted_at_its_classifier(arch: str) -> None:
    """Also where the classifier is a convolution, and in a file sorted by name, as safetensors is."""
    section = ModelSection(arch=arch)
    weights = {k: torch.zeros(v.shape) for k, v in build_on_meta(section, 9).state_dict().items()}
    assert classes_in({k: weights[k] for k in sorted(weights)}, section) == 9


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"w": torch.zeros(2).to_sparse()}, "^file: w .* dense"),
        ({"w": torch.zeros(2, device="meta")}, "^file: w .* dense"),
        ({"w": torch.zeros(2), "module.w": torch.zeros(2)}, "^file .* w twice"),
        ({"epoch": 3, "ema": {}}, "^file .* checkpoint: .* epoch, ema$"),
    ],
)
def test_odd_files(content: object, told: str) -> None:
    with pytest.raises(InputError, match=told):
        find_state_dict(content, "file")


def test_the_first_wrapper_that_holds_a_state_dict_counts() -> None:
    weights = {"w": torch.ones(2)}
    for content in ({"state_dict": {}, "model": weights}, {"state_dict": {"epoch": 3, "model": weights}}):
        assert find_state_dict(content, "file") == weights


def test_whole_numbers_are_no_weights() -> None:
    weights = {k: v.int() for k, v in torchvision.models.resnet18(num_classes=7).state_dict().items()}
    with pytest.raises(InputError, match=r"has conv1\.weight .*int32"):
        load_weights(build_model(ModelSection(arch="resnet18"), 7), weights, "file")


@pytest.mark.parametrize("content", [None, 3, {}, {"epoch": 3}, [torch.zeros(1)], {1: torch.zeros(1)}])
def test_what_is_no_state_dict(content: object) -> None:
    with pytest.raises(InputError, match=r"^file .* checkpoint"):
        find_state_dict(content, "file")


def test_a_mismatch_names_the_first_names_and_shapes() -> None:
    weights = torchvision.models.resnet18(num_classes=7).state_dict()
    del weights["bn1.bias"]
    weights["head"] = torch.zeros(1)
    with pytest.raises(InputError) as error:
        load_weights(build_model(ModelSection(arch="resnet18"), 9), weights, "file")
    differing = r"lacks bn1\.bias; .* head; .*fc\.weight \(7, 512\) .*\(9, 512\)"
    assert re.search(differing, str(error.value))


def test_wrappers_that_hold_each_other_are_searched_once() -> None:
    """A search of each way through these would take 5^40 steps, and one through the cycle would not end."""
    inner: dict[str, Any] = {"epoch": 1}
    for _ in range(40):
        inner = dict.fromkeys(("state_dict", "model", "model_state", "model_state_dict", "net"), inner)
    cycle: dict[str, Any] = {}
    cycle["model"] = cycle
    for content in (inner, cycle):
        with pytest.raises(InputError, match="no state dict"):
            find_state_dict(content, "x.pth")


def test_a_classifier_of_no_shape_shows_no_classes() -> None:
    weights = build_model(ModelSection(arch="resnet18"), 5).state_dict()
    for bias in (torch.tensor(1.0), torch.zeros(0), torch.zeros(2, 2)):
        assert classes_in({**weights, "fc.bias": bias}, ModelSection(arch="resnet18")) is None
