"""The recipes of later years have the network, the training and the accuracy that their sources publish.

The numbers here are written by hand from the sources that the recipes' headers name. What a source does not use is off:
`NOTHING` says so for every option.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from torchvision.models import get_weight

from helpers.network_sizes import Net, of_residual
from resnext_train.config import catalogue, find_entry, load_recipe, shipped_recipes
from resnext_train.models.complexity import measure
from resnext_train.training.lr_schedule import build_schedule

ROOT = Path(__file__).parents[3]
IMAGES = 1_281_167
"""Training images of ImageNet-1K."""

Values = dict[str, Any]
"""A recipe's values by section.key."""

NOTHING: Values = {
    "model.blur_pool": False,
    "model.stochastic_depth": 0,
    "model.zero_gamma": False,
    "model.conv_init": "fan_out",
    "model.bn_momentum": 0.1,
    "model.bn_epsilon": 1e-5,
    "data.mean": [0.485, 0.456, 0.406],
    "data.std": [0.229, 0.224, 0.225],
    "augment.crop": "area",
    "augment.size": 224,
    "augment.area": [0.08, 1],
    "augment.aspect": [3 / 4, 4 / 3],
    "augment.aspect_law": "log",
    "augment.interpolation": "bilinear",
    "augment.flip": 0.5,
    "augment.brightness": 0,
    "augment.contrast": 0,
    "augment.saturation": 0,
    "augment.lighting": 0,
    "augment.repeats": 1,
    "augment.growth": None,
    "auto_augment.name": "none",
    "erase.probability": 0,
    "mix.mixup": 0,
    "mix.cutmix": 0,
    "optimizer.name": "sgd",
    "optimizer.decay_1d": False,
    "optimizer.clip_norm": None,
    "schedule.name": "cosine",
    "schedule.final": 0,
    "schedule.warmup": 0,
    "schedule.warmup_from": None,
    "train.loss": "cross_entropy",
    "train.label_smoothing": 0,
    "train.last_batch": "drop",
    "train.max_steps": None,
    "ema.decay": None,
    "eval.protocol": "center",
    "eval.resize": 256,
    "eval.crop_ratio": None,
    "eval.crop": 224,
    "eval.interpolation": "bilinear",
}


def sgd(momentum: float = 0.9, nesterov: bool = False, **more: Any) -> Values:
    more = {"lr": None, "lr_per_256": None} | more
    return {f"optimizer.{k}": v for k, v in ({"momentum": momentum, "nesterov": nesterov} | more).items()}


def batch(gpus: int, images: int, epochs: int) -> Values:
    return {"train.batch_size": gpus * images, "train.micro_batch": images, "train.epochs": epochs}


# timm's rand-mM-mstd0.5-inc1: two operations (num_layers), each done with probability 0.5.
RANDAUGMENT: Values = {"name": "timm_randaugment", "num_ops": 2, "magnitude_std": 0.5, "increasing": True}
RANDAUGMENT = {f"auto_augment.{k}": v for k, v in (RANDAUGMENT | {"probability": 0.5}).items()}

SOURCES: dict[str, Values] = {
    # configs/_base_: models' zero_init_residual is on by default; the last batch is filled up, not dropped.
    "mmpretrain": sgd(lr=0.1, weight_decay=1e-4, decay_1d=True)
    | batch(8, 32, 100)
    | {"model.zero_gamma": True, "train.last_batch": "keep"}
    | {"schedule.name": "step", "schedule.milestones": [30, 60, 90], "schedule.factor": 0.1},
    # core/config.py: NESTEROV, WARMUP_FACTOR 0.1; core/loader.py: drop_last; datasets/transforms.py: no logarithm.
    "pycls": sgd(nesterov=True, lr_per_256=0.2, weight_decay=5e-5, decay_1d=True)
    | batch(8, 32, 100)
    | {"augment.aspect_law": "uniform", "augment.lighting": 0.1, "schedule.warmup": 5, "schedule.warmup_from": 0.1},
    # configs.yml, models/resnet.py: fan_in; optimizers.py: the first epoch of eight has an eighth.
    "nvidia": sgd(momentum=0.875, lr_per_256=0.256)
    | {"model.conv_init": "fan_in", "schedule.warmup": 8, "train.label_smoothing": 0.1},
    # train.py: lr_warmup_decay 0.01, model_ema_steps 32; transforms.RandomErasing: scale (0.02, 0.33), ratio (0.3, 3.3)
    "torchvision": sgd(lr=0.5, weight_decay=2e-5)
    | batch(8, 128, 600)
    | {"schedule.warmup": 5, "schedule.warmup_from": 0.01, "train.label_smoothing": 0.1, "eval.resize": 232}
    | {"auto_augment.name": "trivial_augment_wide", "auto_augment.interpolation": "bilinear"}
    | {"erase.probability": 0.1, "erase.value": "constant", "erase.count": 1}
    | {"erase.area": [0.02, 0.33], "erase.aspect": [0.3, 3.3]}
    | {"mix.mixup": 0.2, "mix.cutmix": 1, "mix.switch": 0.5}
    | {"ema.decay": 1 - (1 - 0.99998) * 8 * 128 * 32 / 600, "ema.every": 32, "ema.warmup": 5},
    # --lr 0.6 --warmup-epochs 5 --epochs 240 --reprob 0.4 --recount 3 --remode pixel --aa rand-m7-mstd0.5-inc1 -b 192
    "timm": sgd(nesterov=True, lr=0.6, weight_decay=1e-4)
    | batch(8, 192, 240)
    | {"model.zero_gamma": True, "augment.interpolation": "bicubic", "train.label_smoothing": 0.1}
    | {"schedule.warmup": 5, "schedule.warmup_from": 1e-4 / 0.6, "schedule.final": 1e-6}
    | RANDAUGMENT
    | {"auto_augment.magnitude": 7, "auto_augment.interpolation": "random"}
    | {"erase.probability": 0.4, "erase.value": "pixel", "erase.count": 3}
    | {"erase.area": [0.02, 1 / 3], "erase.aspect": [0.3, 1 / 0.3]}
    | {"eval.resize": None, "eval.crop_ratio": 0.875, "eval.interpolation": "bicubic"},
    # Table 2 of the paper; timm's Lamb: betas, eps, max_grad_norm 1.0
    "rsb": {"optimizer.name": "lamb", "optimizer.beta1": 0.9, "optimizer.beta2": 0.999, "optimizer.epsilon": 1e-6}
    | {
        "optimizer.clip_norm": 1,
        "model.zero_gamma": True,
        "train.loss": "bce",
        "train.bce_threshold": 0.2,
        "augment.interpolation": "bicubic",
    }
    | {"schedule.warmup": 5, "schedule.final": 1e-6, "mix.cutmix": 1, "mix.switch": 0.5}
    | RANDAUGMENT
    | {"eval.resize": None, "eval.crop_ratio": 0.95, "eval.interpolation": "bicubic"},
    # rn50_configs; train_imagenet.py: get_cyclic_lr, DEFAULT_CROP_RATIO; flips are added as logits
    "ffcv": sgd(lr=1.7, weight_decay=1e-4)
    | {"model.blur_pool": True, "schedule.name": "linear", "train.label_smoothing": 0.1}
    | {"augment.start_size": 160, "augment.size": 192, "eval.protocol": "center_flip", "eval.average": "logits"}
    | {"eval.resize": None, "eval.crop_ratio": 224 / 256, "eval.crop": 256},
}


def nvidia(epochs: int, images: int, decay: float) -> Values:
    return batch(8, images, epochs) | {"optimizer.weight_decay": decay, "mix.mixup": 0.2 if epochs == 250 else 0}


A1 = batch(4, 512, 600) | {"augment.repeats": 3, "model.stochastic_depth": 0.05, "auto_augment.magnitude": 7}
A1 |= {"mix.mixup": 0.2, "optimizer.lr": 5e-3, "schedule.warmup_from": 1e-4 / 5e-3}
A2 = A1 | batch(4, 512, 300) | {"mix.mixup": 0.1, "optimizer.weight_decay": 0.02}
A1 |= {"optimizer.weight_decay": 0.01, "train.label_smoothing": 0.1}
A3 = batch(4, 512, 100) | {"augment.size": 160, "auto_augment.magnitude": 6, "mix.mixup": 0.1}
A3 |= {"optimizer.lr": 8e-3, "optimizer.weight_decay": 0.02, "schedule.warmup_from": 1e-4 / 8e-3}
FIXRES: Values = {"augment.size": 176, "augment.repeats": 4}
FFCV_16 = batch(8, 512, 16) | {"augment.growth": [11, 13], "schedule.points": [[0, 1e-4], [2, 1], [16, 0]]}
FFCV_88 = batch(8, 512, 88) | {"augment.growth": [65, 76], "schedule.points": [[0, 1e-4], [2, 1], [88, 0]]}

R50 = Net((3, 4, 6, 3))
X50, X101 = Net((3, 4, 6, 3), groups=32, width=4), Net((3, 4, 23, 3), groups=32, width=4)
RECIPES: dict[str, tuple[Net, str, Values]] = {
    # Network; accuracies in per cent, in the order of the header; what the source's other recipes do not share.
    "mmpretrain/resnext50_32x4d": (X50, "77.90 93.66", {}),
    "mmpretrain/resnext101_32x4d": (X101, "78.61 94.17", {}),
    "pycls/resnext50_32x4d": (X50, "78.1", {}),
    "nvidia/resnet50_90": (R50, "77.12", nvidia(90, 256, 1 / 32768)),
    "nvidia/resnet50_250": (R50, "78.43", nvidia(250, 256, 1 / 32768)),
    "nvidia/resnext101_32x4d_90": (X101, "79.47", nvidia(90, 128, 1 / 16384)),
    "nvidia/resnext101_32x4d_250": (X101, "80.19", nvidia(250, 128, 1 / 16384)),
    "torchvision/resnet50": (R50, "80.858 95.434", FIXRES),
    "torchvision/resnext50_32x4d": (X50, "81.198 95.340", {"train.last_batch": "keep"}),
    "torchvision/resnext101_64x4d": (Net((3, 4, 23, 3), groups=64, width=4), "83.246 96.454", FIXRES),
    "timm/resnext50_32x4d_ra": (X50, "79.762 94.60", {}),
    "rsb/resnet50_a1": (R50, "80.4", A1),
    "rsb/resnet50_a2": (R50, "79.8", A2),
    "rsb/resnet50_a3": (R50, "78.1", A3),
    "rsb/resnext50_32x4d_a1": (X50, "80.53", A1),
    "rsb/resnext50_32x4d_a2": (X50, "80.44", A2),
    "rsb/resnext50_32x4d_a3": (X50, "79.26", A3),
    "ffcv/resnet50_16": (Net((3, 4, 6, 3), blur=True), "73.8 90.8", FFCV_16),
    "ffcv/resnet50_88": (Net((3, 4, 6, 3), blur=True), "78.4 94.1", FFCV_88),
}


def flat(sections: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for section, values in sections.items():
        yield from ((f"{section}.{key}", value) for key, value in values.items())


def test_the_table_covers_all_recipes() -> None:
    folder = shipped_recipes()
    shipped = (p for source in SOURCES for p in (folder / source).glob("*.yaml") if not p.name.startswith("_"))
    assert sorted(str(p.relative_to(folder)) for p in shipped) == sorted(f"{name}.yaml" for name in RECIPES)


@pytest.mark.parametrize("name", RECIPES)
def test_training_is_the_sources(name: str) -> None:
    found = dict(flat(load_recipe(name).to_dict()))
    wanted = NOTHING | SOURCES[name.partition("/")[0]] | RECIPES[name][2]
    if found["schedule.name"] != "cosine":
        wanted.pop("schedule.final")
    for key, value in wanted.items():
        if isinstance(value, list) and isinstance(value[0], list):
            assert found[key] == value, key
        else:
            assert found[key] == (value if isinstance(value, str | bool | None) else pytest.approx(value)), key


@pytest.mark.parametrize(
    ("name", "steps_per_epoch", "peak"),
    [
        # NVIDIA's configs.yml has these learning rates; pycls's config has 0.2.
        ("nvidia/resnet50_90", 625, 2.048),
        ("nvidia/resnext101_32x4d_250", 1251, 1.024),
        ("pycls/resnext50_32x4d", 5004, 0.2),
    ],
)
def test_the_learning_rate_grows_with_the_batch(name: str, steps_per_epoch: int, peak: float) -> None:
    recipe = load_recipe(name)
    assert IMAGES // recipe.train.batch_size == steps_per_epoch
    assert recipe.optimizer.peak_lr(recipe.train.batch_size) == pytest.approx(peak)


@pytest.mark.parametrize("epochs", [16, 88])
def test_ffcv_rises_for_two_epochs_and_falls_to_zero(epochs: int) -> None:
    """train_imagenet.py, get_cyclic_lr: numpy.interp over [0, 2, epochs], step by step."""
    recipe = load_recipe(f"ffcv/resnet50_{epochs}")
    schedule = build_schedule(recipe.schedule, 1.7, 100, 100 * epochs)
    assert schedule.lr(0) == pytest.approx(1.7e-4)
    assert schedule.lr(50) == pytest.approx(1.7 * (0.75 * 1e-4 + 0.25))
    assert schedule.lr(200) == pytest.approx(1.7)
    assert schedule.lr(100 * epochs - 1) == pytest.approx(1.7 / (100 * (epochs - 2)))


@pytest.mark.parametrize("name", RECIPES)
def test_size_is_the_sum_over_the_layers(name: str) -> None:
    recipe = load_recipe(name)
    size = measure(recipe.model, 1000, recipe.eval.crop)
    assert (size.parameters, size.multiply_adds) == of_residual(RECIPES[name][0], 1000, recipe.eval.crop)


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("torchvision/resnet50", "ResNet50_Weights.IMAGENET1K_V2"),
        ("torchvision/resnext50_32x4d", "ResNeXt50_32X4D_Weights.IMAGENET1K_V2"),
        ("torchvision/resnext101_64x4d", "ResNeXt101_64X4D_Weights.IMAGENET1K_V1"),
    ],
)
def test_accuracy_and_test_size_are_those_of_torchvisions_weights(name: str, weights: str) -> None:
    weight, recipe = get_weight(weights), load_recipe(name)
    metrics = weight.meta["_metrics"]["ImageNet-1K"]
    assert [float(n) for n in RECIPES[name][1].split()] == [metrics["acc@1"], metrics["acc@5"]]
    transforms = weight.transforms()
    assert transforms.resize_size == [recipe.eval.short_side]
    assert transforms.crop_size == [recipe.eval.crop]


def test_short_sides_are_those_of_the_sources() -> None:
    """timm: floor(224 / 0.95), floor(224 / 0.875). FFCV cuts the central 7/8 and resizes it to 256."""
    assert load_recipe("rsb/resnet50_a3").eval.short_side == 235
    assert load_recipe("timm/resnext50_32x4d_ra").eval.short_side == 256
    assert load_recipe("ffcv/resnet50_16").eval.short_side == 292


def test_headers_state_accuracies() -> None:
    entries = {entry.name.removesuffix(".yaml"): entry for entry in catalogue()}
    for name, (_, accuracies, _) in RECIPES.items():
        entry = entries[name]
        told = re.findall(r"top-[15] accuracy ([\d.]+) %", entry.result.partition(" (")[0])
        assert told == accuracies.split(), name
        assert entry.classes == 1000, name
        assert entry.reproduces.endswith("."), name
        assert entry.result.endswith(")."), name
        assert entry.recipe.train.reference, name


def test_it_is_found_by_its_values() -> None:
    """What a run was trained with names it on a model card, however it was computed."""
    recipe = load_recipe("rsb/resnet50_a3", ["train.checkpoint_activations=true", "train.precision=bf16"])
    entry = find_entry(recipe, 1000)
    assert entry is not None
    assert entry.name == "rsb/resnet50_a3.yaml"


def test_the_readme_lists_all_with_their_sizes_and_accuracies() -> None:
    section = (ROOT / "README.md").read_text().partition("\n### Later recipes\n")[2].partition("\n## ")[0]
    rows = [re.split(r"\s*\|\s*", line)[1:-1] for line in section.splitlines() if ".yaml` |" in line]
    assert sorted(row[0] for row in rows) == sorted(f"`{name}.yaml`" for name in RECIPES)
    for called, _, parameters, multiply_adds, accuracy in rows:
        name = called.strip("`").removesuffix(".yaml")
        assert re.findall(r"\d+\.\d+", accuracy) == RECIPES[name][1].split(), name
        recipe = load_recipe(name)
        size = of_residual(RECIPES[name][0], 1000, recipe.eval.crop)
        assert (parameters, multiply_adds) == (f"{size[0] / 1e6:.1f} M", f"{size[1] / 1e9:.2f} G"), name


def test_the_page_compares_all() -> None:
    """docs/recipes.md, in the table that ends each row with the accuracies."""
    rows = [line for line in (ROOT / "docs/recipes.md").read_text().splitlines() if re.match(r"\| `\w+/", line)]
    told: dict[str, str] = {}
    for row in rows:
        names, accuracies = re.findall(r"`(\w+/\w+)`", row), row.rstrip(" |").rpartition("| ")[2].split(", ")
        told |= dict(zip(names, accuracies, strict=True))
    assert told == {name: accuracies.split()[0] for name, (_, accuracies, _) in RECIPES.items()}
