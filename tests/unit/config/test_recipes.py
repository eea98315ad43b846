"""Every shipped recipe has the published network, training and errors, and says what it reproduces and how to start it.

The numbers here are written by hand from their sources, never taken from the code under test. Later recipes are in
test_later_recipes.py.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torchvision.models import get_weight

from helpers.network_sizes import Net, basic, of_residual, of_vgg
from resnext_train.config import catalogue, load_recipe, shipped_recipes
from resnext_train.models.complexity import Complexity, measure

README = Path(__file__).parents[3] / "README.md"


R50, R101, R200 = (3, 4, 6, 3), (3, 4, 23, 3), (3, 24, 36, 3)
PAPER, FB, RESNET, TORCHVISION, INCEPTION = "ResNeXt", "fb.resnet.torch", "ResNet", "torchvision", "Inception"
FIVE, CIFAR, CIFAR_X, CIFAR_X100 = "ImageNet-5K", "CIFAR ResNet", "CIFAR ResNeXt", "CIFAR-100 ResNeXt"

RECIPES: dict[str, tuple[str, Net | tuple[int, ...] | None, str]] = {
    # Family; network (VGG: convolutions before each pooling; None: only others' counts are compared); errors in per
    # cent, in the order of the header.
    # ResNeXt paper, Table 3
    "imagenet/resnet50_1x64d.yaml": (PAPER, Net(R50), "23.9"),
    "imagenet/resnext50_2x40d.yaml": (PAPER, Net(R50, groups=2, width=40), "23.0"),
    "imagenet/resnext50_4x24d.yaml": (PAPER, Net(R50, groups=4, width=24), "22.6"),
    "imagenet/resnext50_8x14d.yaml": (PAPER, Net(R50, groups=8, width=14), "22.3"),
    "imagenet/resnext50_32x4d.yaml": (PAPER, Net(R50, groups=32, width=4), "22.2"),
    "imagenet/resnet101_1x64d.yaml": (PAPER, Net(R101), "22.0 6.0"),
    "imagenet/resnext101_2x40d.yaml": (PAPER, Net(R101, groups=2, width=40), "21.7"),
    "imagenet/resnext101_4x24d.yaml": (PAPER, Net(R101, groups=4, width=24), "21.4"),
    "imagenet/resnext101_8x14d.yaml": (PAPER, Net(R101, groups=8, width=14), "21.3"),
    "imagenet/resnext101_32x4d.yaml": (PAPER, Net(R101, groups=32, width=4), "21.2 5.6"),
    # Tables 4 and 5
    "imagenet/resnet200.yaml": (PAPER, Net(R200), "21.7 5.8 20.1 4.8"),
    "imagenet/resnet101_1x100d.yaml": (PAPER, Net(R101, width=100), "21.3 5.7"),
    "imagenet/resnext101_2x64d.yaml": (PAPER, Net(R101, groups=2, width=64), "20.7 5.5"),
    "imagenet/resnext101_64x4d.yaml": (PAPER, Net(R101, groups=64, width=4), "20.4 5.3 19.1 4.4"),
    "imagenet/inception_v3.yaml": (INCEPTION, None, "21.2 5.6"),
    "imagenet/inception_v4.yaml": (INCEPTION, None, "20.0 5.0"),
    "imagenet/inception_resnet_v2.yaml": (INCEPTION, None, "19.9 4.9"),
    # Section 5.1, residual connections
    "imagenet/resnet50_nonresidual.yaml": (PAPER, Net(R50, shortcut=""), "31.2 23.9"),
    "imagenet/resnext50_32x4d_nonresidual.yaml": (PAPER, Net(R50, groups=32, width=4, shortcut=""), "26.1 22.2"),
    # Table 6
    "imagenet5k/resnet50.yaml": (FIVE, Net(R50), "45.5 19.4 27.1 8.2"),
    "imagenet5k/resnext50_32x4d.yaml": (FIVE, Net(R50, groups=32, width=4), "42.3 16.8 24.4 6.6"),
    "imagenet5k/resnet101.yaml": (FIVE, Net(R101), "42.4 16.9 24.2 6.8"),
    "imagenet5k/resnext101_32x4d.yaml": (FIVE, Net(R101, groups=32, width=4), "40.1 15.1 22.2 5.7"),
    # Table 7
    "cifar/resnext29_8x64d.yaml": (CIFAR_X, Net((3, 3, 3), groups=8), "3.65"),
    "cifar/resnext29_16x64d.yaml": (CIFAR_X, Net((3, 3, 3), groups=16), "3.58"),
    "cifar/resnext29_8x64d_cifar100.yaml": (CIFAR_X100, Net((3, 3, 3), groups=8), "17.77"),
    "cifar/resnext29_16x64d_cifar100.yaml": (CIFAR_X100, Net((3, 3, 3), groups=16), "17.31"),
    # fb.resnet.torch
    "imagenet/resnet18.yaml": (FB, basic(2, 2, 2, 2), "30.43 10.76"),
    "imagenet/resnet34.yaml": (FB, basic(3, 4, 6, 3), "26.73 8.74"),
    "imagenet/resnet50.yaml": (FB, Net(R50), "24.01 7.02"),
    "imagenet/resnet101.yaml": (FB, Net(R101), "22.44 6.21"),
    "imagenet/resnet152.yaml": (FB, Net((3, 8, 36, 3)), "22.16 6.16"),
    "imagenet/preact_resnet200.yaml": (FB, Net(R200, preactivation=True), "21.66 5.79 20.1 4.8"),
    # ResNet paper, Tables 2 to 4
    "imagenet/plain18.yaml": (RESNET, basic(2, 2, 2, 2, shortcut=""), "27.94"),
    "imagenet/plain34.yaml": (RESNET, basic(3, 4, 6, 3, shortcut=""), "28.54 10.02"),
    "imagenet/resnet18_shortcut_a.yaml": (RESNET, basic(2, 2, 2, 2, shortcut="A"), "27.88"),
    "imagenet/resnet34_shortcut_a.yaml": (RESNET, basic(3, 4, 6, 3, shortcut="A"), "25.03 7.76"),
    "imagenet/resnet34_shortcut_b.yaml": (RESNET, basic(3, 4, 6, 3, shortcut="B"), "24.52 7.46 21.84 5.71"),
    "imagenet/resnet34_shortcut_c.yaml": (RESNET, basic(3, 4, 6, 3, shortcut="C"), "24.19 7.40 21.53 5.60"),
    "imagenet/resnet50_shortcut_b.yaml": (RESNET, Net(R50), "22.85 6.71 20.74 5.25"),
    "imagenet/resnet101_shortcut_b.yaml": (RESNET, Net(R101), "21.75 6.05 19.87 4.60"),
    "imagenet/resnet152_shortcut_b.yaml": (RESNET, Net((3, 8, 36, 3)), "21.43 5.71 19.38 4.49"),
    # Table 6 and Figure 6
    "cifar/resnet20.yaml": (CIFAR, basic(3, 3, 3, shortcut="A"), "8.75"),
    "cifar/resnet32.yaml": (CIFAR, basic(5, 5, 5, shortcut="A"), "7.51"),
    "cifar/resnet44.yaml": (CIFAR, basic(7, 7, 7, shortcut="A"), "7.17"),
    "cifar/resnet56.yaml": (CIFAR, basic(9, 9, 9, shortcut="A"), "6.97"),
    "cifar/resnet110.yaml": (CIFAR, basic(18, 18, 18, shortcut="A"), "6.43"),
    "cifar/resnet1202.yaml": (CIFAR, basic(200, 200, 200, shortcut="A"), "7.93"),
    "cifar/plain20.yaml": (CIFAR, basic(3, 3, 3, shortcut=""), ""),
    "cifar/plain32.yaml": (CIFAR, basic(5, 5, 5, shortcut=""), ""),
    "cifar/plain44.yaml": (CIFAR, basic(7, 7, 7, shortcut=""), ""),
    "cifar/plain56.yaml": (CIFAR, basic(9, 9, 9, shortcut=""), ""),
    # Baselines: 100 less the accuracies that torchvision states for its weights; GoogLeNet paper, Table 3
    "imagenet/vgg16_bn.yaml": (TORCHVISION, (2, 2, 3, 3, 3), "26.64 8.48"),
    "imagenet/vgg19_bn.yaml": (TORCHVISION, (2, 2, 4, 4, 4), "25.78 8.16"),
    "imagenet/googlenet.yaml": ("GoogLeNet", None, "10.07 30.22 10.47"),
    # Nothing published
    "tiny_imagenet/resnext26_32x4d.yaml": ("laptop", Net((2, 2, 2, 2), groups=32, width=4), "80"),
    "tiny_imagenet/resnext26_32x4d_adamw.yaml": ("laptop", Net((2, 2, 2, 2), groups=32, width=4), "74"),
    "tiny_imagenet/resnext26_32x4d_plain.yaml": ("laptop", Net((2, 2, 2, 2), groups=32, width=4), "72"),
    "tiny_imagenet/resnext26_32x4d_torchvision.yaml": ("laptop", Net((2, 2, 2, 2), groups=32, width=4), "72"),
    "tiny_imagenet/resnext26_32x4d_a3.yaml": ("laptop", Net((2, 2, 2, 2), groups=32, width=4), "78"),
    "tiny_imagenet/resnet26_1x64d.yaml": ("laptop", Net((2, 2, 2, 2)), "80"),
    "tiny_imagenet/resnet20_32px.yaml": ("laptop", basic(3, 3, 3, shortcut="A"), "82"),
    "tiny_imagenet/plain20_32px.yaml": ("laptop", basic(3, 3, 3, shortcut=""), "72"),
    "smoke.yaml": ("smoke", Net((1, 1, 1, 1), groups=8, width=4), "90 10"),
}

Values = dict[str, Any]
"""A section of a recipe, by key."""

FB_STEPS: Values = {"name": "step", "milestones": [30, 60], "factor": 0.1, "warmup": 0}
FB_SGD: Values = {"name": "sgd", "lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 1e-4, "decay_1d": True}
FB_SGD |= {"clip_norm": None}
FB_IMAGES: Values = {"crop": "area", "size": 224, "area": [0.08, 1], "aspect": [3 / 4, 4 / 3], "flip": 0.5}
FB_IMAGES |= {"interpolation": "bicubic", "brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "lighting": 0.1}
FB_BATCH: Values = {"epochs": 90, "batch_size": 256, "micro_batch": 32, "label_smoothing": 0, "max_steps": None}
FB_EVAL: Values = {"resize": 256, "crop": 224, "interpolation": "bicubic", "classes": None}
FB_TRAINING: dict[str, Values] = {
    "data": {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "val_classes": "same"},
    "augment": FB_IMAGES,
    "optimizer": FB_SGD,
    "schedule": FB_STEPS,
    "train": FB_BATCH,
    "eval": FB_EVAL,
}
SCALE_JITTER: Values = {"crop": "scale_jitter", "size": 224, "short_side": [256, 480], "interpolation": "bicubic"}
SCALE_JITTER |= {"flip": 0.5, "lighting": 0.1}  # ResNet paper, section 3.4
NO_COLOUR: Values = {"brightness": 0, "contrast": 0, "saturation": 0}
CIFAR_TRAINING = FB_TRAINING | {
    "data": {"mean": [125.3 / 255, 123.0 / 255, 113.9 / 255], "std": [63.0 / 255, 62.1 / 255, 66.7 / 255]},
    "augment": {"crop": "pad", "size": 32, "padding": 4, "flip": 0.5, "lighting": 0, **NO_COLOUR},
    "schedule": FB_STEPS | {"milestones": [80, 121]},
    "train": FB_BATCH | {"epochs": 164, "batch_size": 128, "micro_batch": 64},
    "eval": {"resize": 32, "crop": 32},
}
CIFAR_X_TRAINING = CIFAR_TRAINING | {
    "optimizer": FB_SGD | {"weight_decay": 5e-4},
    "schedule": FB_STEPS | {"milestones": [150, 225]},
    "train": FB_BATCH | {"epochs": 300, "batch_size": 128, "micro_batch": 16},
}
TORCHVISION_TRAINING = FB_TRAINING | {
    "augment": FB_IMAGES | NO_COLOUR | {"lighting": 0, "interpolation": "bilinear"},
    "optimizer": FB_SGD | {"lr": 0.01, "nesterov": False},
    "eval": FB_EVAL | {"interpolation": "bilinear"},
}
TRAINING: dict[str, dict[str, Values]] = {
    FB: FB_TRAINING,
    PAPER: FB_TRAINING | {"train": FB_BATCH | {"epochs": 100}, "schedule": FB_STEPS | {"milestones": [30, 60, 90]}},
    FIVE: FB_TRAINING
    | {
        "data": FB_TRAINING["data"] | {"val_classes": "subset"},
        "schedule": FB_STEPS | {"milestones": [6, 12, 18]},
        "train": FB_BATCH | {"epochs": 20},
    },
    RESNET: FB_TRAINING
    | {
        "augment": SCALE_JITTER | NO_COLOUR,
        "optimizer": FB_SGD | {"nesterov": False},
        "schedule": {"name": "plateau", "factor": 0.1, "warmup": 0},
        "train": FB_BATCH | {"epochs": 120},
    },
    TORCHVISION: TORCHVISION_TRAINING,
    "GoogLeNet": TORCHVISION_TRAINING
    | {
        "data": {"mean": [0.5] * 3, "std": [0.5] * 3},
        "optimizer": FB_SGD | {"lr": 0.01, "nesterov": False, "weight_decay": 2e-4},
        "schedule": {"name": "exponential", "factor": 0.96, "every": 8, "warmup": 0},
        "train": FB_BATCH | {"epochs": 250},
    },
    INCEPTION: {
        "data": {"mean": [0.5] * 3, "std": [0.5] * 3},
        "augment": {"crop": "area", "size": 299, "area": [0.05, 1], "interpolation": "bilinear", "lighting": 0},
        "optimizer": {"name": "rmsprop", "lr": 0.045, "decay": 0.9, "epsilon": 1, "momentum": 0.9, "clip_norm": 2}
        | {"weight_decay": 4e-5, "decay_1d": False},
        "schedule": {"name": "exponential", "factor": 0.94, "every": 2, "warmup": 0},
        "train": FB_BATCH | {"epochs": 100, "label_smoothing": 0.1},
        "eval": {"resize": 342, "crop": 299, "interpolation": "bilinear"},
    },
    CIFAR: CIFAR_TRAINING,
    CIFAR_X: CIFAR_X_TRAINING,
    CIFAR_X100: CIFAR_X_TRAINING
    | {"data": {"mean": [129.3 / 255, 124.1 / 255, 112.4 / 255], "std": [68.2 / 255, 65.4 / 255, 70.4 / 255]}},
    "laptop": {},
    "smoke": {},
}
CLASSES = {FIVE: 5000, CIFAR: 10, CIFAR_X: 10, CIFAR_X100: 100, "laptop": 10, "smoke": 10}

COUNTED = {
    # Parameters as others counted them. ResNeXt-101 32×4d and ResNet-200: timm. ResNet paper, Table 6, and ResNeXt
    # paper, Table 7, round those of CIFAR to 0.27, 0.46, 0.66, 0.85, 1.7, 34.4 and 68.1 million.
    "imagenet/resnext101_32x4d.yaml": 44_177_704,
    "imagenet/resnet200.yaml": 64_673_832,
    "cifar/resnet20.yaml": 269_722,
    "cifar/resnet32.yaml": 464_154,
    "cifar/resnet44.yaml": 658_586,
    "cifar/resnet56.yaml": 853_018,
    "cifar/resnet110.yaml": 1_727_962,
    "cifar/resnext29_8x64d.yaml": 34_426_698,
    "cifar/resnext29_16x64d.yaml": 68_155_210,
    # The first: imgclsmob's table. The second: Keras has 55,813,192 without the scales of its BN, of 30,272 channels.
    "imagenet/inception_v4.yaml": 42_679_816,
    "imagenet/inception_resnet_v2.yaml": 55_813_192 + 30_272,
}
TIMM_MULTIPLY_ADDS = {
    # G, with BN and pooling, so up to 0.5 % more: timm's results/benchmark-infer-amp-nchw-pt110-cu113-rtx3090.csv.
    "imagenet/inception_v4.yaml": 12.28,
    "imagenet/inception_resnet_v2.yaml": 13.18,
    "imagenet/resnet200.yaml": 15.07,
    "imagenet/resnext101_32x4d.yaml": 8.01,
    "imagenet/resnext101_64x4d.yaml": 15.52,
}
TORCHVISION_WEIGHTS = {
    "imagenet/resnet18.yaml": "ResNet18",
    "imagenet/resnet34.yaml": "ResNet34",
    "imagenet/resnet34_shortcut_b.yaml": "ResNet34",
    "imagenet/resnet50.yaml": "ResNet50",
    "imagenet/resnet50_1x64d.yaml": "ResNet50",
    "imagenet/resnet50_shortcut_b.yaml": "ResNet50",
    "imagenet/resnet101.yaml": "ResNet101",
    "imagenet/resnet101_shortcut_b.yaml": "ResNet101",
    "imagenet/resnet101_1x64d.yaml": "ResNet101",
    "imagenet/resnet152.yaml": "ResNet152",
    "imagenet/resnet152_shortcut_b.yaml": "ResNet152",
    "imagenet/resnext50_32x4d.yaml": "ResNeXt50_32X4D",
    "imagenet/resnext101_64x4d.yaml": "ResNeXt101_64X4D",
    "imagenet/vgg16_bn.yaml": "VGG16_BN",
    "imagenet/vgg19_bn.yaml": "VGG19_BN",
    "imagenet/googlenet.yaml": "GoogLeNet",
    "imagenet/inception_v3.yaml": "Inception_V3",
}
GOOGLENET_AUXILIARY = sum(
    # GoogLeNet paper, section 5: 1×1 convolution to 128 (and BN) on 4×4, 1024 units, classifier; behind 4a and 4d.
    inputs * 128 + 2 * 128 + (4 * 4 * 128 + 1) * 1024 + (1024 + 1) * 1000
    for inputs in (512, 528)
)


LATER = ("ffcv", "mmpretrain", "nvidia", "pycls", "rsb", "timm", "torchvision")
"""Folders of the recipes that test_later_recipes.py covers."""


def shipped(later: bool = False) -> list[str]:
    folder = shipped_recipes()
    names = (str(p.relative_to(folder)) for p in folder.rglob("*.yaml") if not p.name.startswith("_"))
    return sorted(name for name in names if later or not name.startswith(LATER))


def classes_of(name: str) -> int:
    return CLASSES.get(RECIPES[name][0], 1000)


@cache
def measured(name: str) -> Complexity:
    recipe = load_recipe(name)
    if recipe.model.arch.startswith("timm/"):
        pytest.importorskip("timm")
    return measure(recipe.model, classes_of(name), recipe.eval.crop)


def test_the_table_covers_all_recipes() -> None:
    assert shipped() == sorted(RECIPES)


@pytest.mark.parametrize("name", [n for n, (_, net, _) in RECIPES.items() if net])
def test_size_is_the_sum_over_the_layers_of_the_papers(name: str) -> None:
    net = RECIPES[name][1]
    assert net
    size, classes = measured(name), classes_of(name)
    by_hand = of_residual(net, classes, size.size) if isinstance(net, Net) else of_vgg(net, classes, size.size)
    assert (size.parameters, size.multiply_adds) == by_hand


@pytest.mark.parametrize("name", TORCHVISION_WEIGHTS)
def test_size_is_torchvisions(name: str) -> None:
    meta = get_weight(f"{TORCHVISION_WEIGHTS[name]}_Weights.IMAGENET1K_V1").meta
    size = measured(name)
    without = GOOGLENET_AUXILIARY if "googlenet" in name else 0  # its weights have no auxiliary classifiers
    assert size.parameters == meta["num_params"] + without
    assert size.multiply_adds / 1e9 == pytest.approx(meta["_ops"], abs=0.0006)


@pytest.mark.parametrize("name", COUNTED)
def test_size_is_what_others_counted(name: str) -> None:
    assert measured(name).parameters == COUNTED[name]


@pytest.mark.parametrize("name", TIMM_MULTIPLY_ADDS)
def test_multiply_adds_are_timms_but_for_bn(name: str) -> None:
    assert 0.995 * TIMM_MULTIPLY_ADDS[name] < measured(name).multiply_adds / 1e9 < TIMM_MULTIPLY_ADDS[name]


def test_every_size_has_a_source() -> None:
    assert {n for n, (_, net, _) in RECIPES.items() if net} | set(TORCHVISION_WEIGHTS) | set(COUNTED) == set(RECIPES)


def test_inception_v3_without_its_auxiliary_classifier() -> None:
    """Inception-v3 paper, abstract: under 25 million parameters, about 5·10^9 multiply-adds."""
    size = measured("imagenet/inception_v3.yaml")
    assert 23e6 < size.parameters - size.auxiliary_parameters < 25e6
    assert 5e9 < size.multiply_adds < 6e9


@pytest.mark.parametrize("name", ["resnet200", "resnext101_32x4d"])
def test_timm_has_as_many_parameters(name: str) -> None:
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        network = timm.create_model(name)
    assert sum(p.numel() for p in network.parameters()) == COUNTED[f"imagenet/{name}.yaml"]


@pytest.mark.parametrize("name", shipped())
def test_training_is_the_published_one(name: str) -> None:
    resolved = load_recipe(name).to_dict()
    for section, wanted in TRAINING[RECIPES[name][0]].items():
        wanted = dict(wanted)
        if name in ("cifar/resnet110.yaml", "cifar/resnet1202.yaml") and section == "schedule":
            wanted["warmup"] = "400 steps"  # ResNet paper, section 4.2
        for key, value in wanted.items():
            found = resolved[section][key]
            if isinstance(value, list):
                assert found == pytest.approx(value, abs=1e-6), f"{section}.{key}"
            else:
                assert found == value, f"{section}.{key}"


@pytest.mark.parametrize(
    ("name", "images", "mini_batches"),
    [
        ("plain34", 1_281_167, 600_000),
        ("cifar/resnet20", 50_000, 64_000),
        ("imagenet5k/resnet50", 6_800_000, 100 * 1_281_167 / 256),
    ],
)
def test_epochs_are_as_many_mini_batches_as_in_the_papers(name: str, images: int, mini_batches: float) -> None:
    """ResNet paper, sections 3.4 and 4.2; ResNeXt paper, section 5.2: as many on ImageNet-5K as on ImageNet-1K."""
    train = load_recipe(name).train
    assert train.epochs * images / train.batch_size == pytest.approx(mini_batches, rel=0.07)


def test_headers_state_what_was_published() -> None:
    for entry in catalogue():
        if entry.name.startswith(LATER):
            continue
        name = entry.name if entry.name in RECIPES else f"imagenet/{entry.name}"
        assert entry.classes == classes_of(name), name
        assert entry.reproduces, name
        assert re.findall(r"([\d.]+) %", entry.result)[: len(RECIPES[name][2].split())] == RECIPES[name][2].split(), (
            name
        )
        assert entry.result.endswith("."), name
        assert "top-1 accuracy" not in entry.result, name


@pytest.mark.parametrize("name", shipped(later=True))
def test_header(name: str) -> None:
    text = (shipped_recipes() / name).read_text()
    header = "".join(line for line in text.splitlines(keepends=True) if line.startswith("#"))
    called = name.removeprefix("imagenet/")
    assert "Reproduces:" in header
    assert len(re.findall("^# (?:Published error|Published accuracy|Expected): ", header, re.MULTILINE)) == 1
    assert f"resnext train --config {called}" in header
    processes = 8 if name.startswith(("imagenet", *LATER)) else 2
    assert f"resnext train --procs {processes} --config {called}" in header
    for line in re.findall(r"^# .*: +resnext train (.*)", header, re.MULTILINE):
        procs = re.search(r"--procs (\d+)", line)
        micro_batches = load_recipe(name, re.findall(r"train\.\S+", line)).train.micro_batches
        assert micro_batches % int(procs[1] if procs else 1) == 0, line
    assert ("pip install 'resnext-train[timm]'" in header) == ("arch: timm/" in text)
    schema = header.rpartition("$schema=")[2].split()[0]
    assert (shipped_recipes() / Path(name).parent / schema).is_file()


def test_a_variant_is_a_few_lines_on_a_base() -> None:
    for name in shipped(later=True):
        lines = [s for s in (shipped_recipes() / name).read_text().splitlines() if s and not s.startswith("#")]
        assert len(lines) <= (6 if name in RECIPES and RECIPES[name][0] not in ("laptop", "smoke") else 9), name


@pytest.mark.slow
def test_the_readme_lists_all_recipes_with_their_sizes() -> None:
    section = README.read_text().partition("## Recipes\n")[2].partition("\n### Later recipes\n")[0]
    rows = [re.split(r"\s*\|\s*", line)[1:-1] for line in section.splitlines() if ".yaml` |" in line]
    names = [row[0].strip("`") for row in rows]
    assert sorted(names) == sorted(name.removeprefix("imagenet/") for name in RECIPES)
    for called, (_, _, parameters, multiply_adds, error) in zip(names, rows, strict=True):
        name = called if called in RECIPES else f"imagenet/{called}"
        stated = re.findall(r"\d+\.\d+", error)
        published = RECIPES[name][2].split()
        assert stated == published[: len(stated)] or name == "imagenet/googlenet.yaml", name
        expected_only = name.startswith(("tiny_imagenet/", "smoke"))
        assert stated or not published or expected_only or error == "none by itself", name
        try:
            size = measured(name)
        except pytest.skip.Exception:
            continue  # timm is not installed
        assert parameters == f"{size.parameters / 1e6:.{1 if size.parameters > 2e6 else 2}f} M", name
        assert multiply_adds == f"{size.multiply_adds / 1e9:.2f} G", name
