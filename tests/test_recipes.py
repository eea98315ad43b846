"""Every shipped recipe loads, builds, has the published size, and says what it reproduces and how to start it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from resnext_train.config import load_recipe, shipped_recipes
from resnext_train.models.build import build_model
from resnext_train.models.complexity import measure

PUBLISHED = {
    # Parameters and multiply-adds (G, at the evaluation crop). ImageNet: torchvision's published model sizes and
    # those of the papers; the two small networks: a sum over layers by hand (see by_arithmetic).
    "imagenet/resnet18.yaml": (11_689_512, 1.81),
    "imagenet/resnet34.yaml": (21_797_672, 3.66),
    "imagenet/resnet50.yaml": (25_557_032, 4.09),
    "imagenet/resnet101.yaml": (44_549_160, 7.80),
    "imagenet/resnet152.yaml": (60_192_808, 11.51),
    "imagenet/resnext50_32x4d.yaml": (25_028_904, 4.23),
    "imagenet/resnext101_32x4d.yaml": (44_177_704, 7.97),
    "imagenet/resnext101_64x4d.yaml": (83_455_272, 15.46),
    "tiny_imagenet/resnext26_32x4d.yaml": (None, None),
    "smoke.yaml": (None, None),
}
CLASSES = {"imagenet": 1000}


def shipped() -> list[str]:
    folder = shipped_recipes()
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*.yaml") if not p.name.startswith("_"))


def test_the_table_covers_all_recipes() -> None:
    assert shipped() == sorted(PUBLISHED)


@pytest.mark.parametrize("name", shipped())
def test_size(name: str) -> None:
    recipe = load_recipe(name)
    classes = CLASSES.get(name.split("/")[0], 10)
    with torch.device("meta"):
        size = measure(build_model(recipe.model, classes), recipe.eval.crop)
    parameters, multiply_adds = PUBLISHED[name]
    if parameters is None:
        parameters, exact = by_arithmetic(recipe.model.arch, classes, recipe.eval.crop)
        assert size.multiply_adds == exact
    else:
        assert size.multiply_adds / 1e9 == pytest.approx(multiply_adds, abs=0.006)
    assert size.parameters == parameters


def by_arithmetic(arch: str, classes: int, pixels: int) -> tuple[int, int]:
    """Parameters and multiply-adds of a bottleneck network, layer by layer, from Table 1 of the ResNeXt paper."""
    blocks, groups, width = {"resnext26_32x4d": (2, 32, 4), "resnext14_8x4d": (1, 8, 4)}[arch]
    parameters = multiply_adds = 0

    def convolution(inputs: int, outputs: int, kernel: int, side: int, split: int = 1) -> None:
        nonlocal parameters, multiply_adds
        weights = inputs // split * outputs * kernel**2
        parameters += weights + 2 * outputs  # BN
        multiply_adds += weights * side**2

    side = -(-pixels // 2)
    convolution(3, 64, 7, side)
    side, inputs = -(-side // 2), 64
    for stage in range(4):
        inner, outputs = groups * width * 2**stage, 256 * 2**stage
        for i in range(blocks):
            before, side = side, -(-side // 2) if stage and i == 0 else side
            convolution(inputs, inner, 1, before)
            convolution(inner, inner, 3, side, groups)
            convolution(inner, outputs, 1, side)
            if i == 0:
                convolution(inputs, outputs, 1, side)
            inputs = outputs
    return parameters + 2048 * classes + classes, multiply_adds + 2048 * classes


@pytest.mark.parametrize("name", shipped())
def test_header(name: str) -> None:
    text = (shipped_recipes() / name).read_text()
    header = "".join(line for line in text.splitlines(keepends=True) if line.startswith("#"))
    called = name.removeprefix("imagenet/")
    assert "Reproduces:" in header
    assert "error:" in header or "Expected:" in header
    assert f"resnext-train --config {called}" in header
    assert f"torchrun --standalone --nproc_per_node={8 if 'imagenet/' in name and 'tiny' not in name else 2} " in header
    assert header.count(f"--config {called}") == 2
    schema = header.rpartition("$schema=")[2].split()[0]
    assert (shipped_recipes() / Path(name).parent / schema).is_file()
