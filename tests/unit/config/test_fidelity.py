"""Where recipes depart from the papers and code that they name.

The sets here were written by hand from these sources, not from what is printed: the Lua code of fb.resnet.torch and
ResNeXt, torch/image and cunn, sections 3.4 and 4 of the ResNet paper, pycls, torchvision's references, timm, mmpretrain
with mmcv, and the Inception papers' image_processing.py.
"""

from __future__ import annotations

import functools
import re
from dataclasses import replace
from pathlib import Path

import pytest

from resnext_train.config import (
    Recipe,
    RunFacts,
    all_keys,
    catalogue,
    deviation_lines,
    deviations,
    load_recipe,
    load_recipe_with_notes,
    reference_of,
    shipped_recipes,
)
from resnext_train.config.fidelity import relevance
from resnext_train.config.fidelity.code_points import CODE_POINTS
from resnext_train.config.fidelity.references import CODE, find_reference, reference_names
from resnext_train.errors import InputError

TORCH_7 = "crop_fallback resize_antialias resize_alignment resize_rounding bn_running precision eval_center"

GOLDEN: dict[str, tuple[str, str]] = {
    "resnext50_32x4d": ("", TORCH_7),
    "resnet50": ("", TORCH_7),
    "imagenet5k/resnet50": ("", TORCH_7),
    "resnet34_shortcut_b": ("eval.protocol", "crop_order mean_of std_divides precision"),
    "cifar/resnet20": ("", "pad_fill bn_running precision"),
    "cifar/resnext29_16x64d_cifar100": ("", "pad_fill bn_running precision"),
    "pycls/resnext50_32x4d": (
        "",
        "decode_orientation crop_position crop_fallback resize_antialias resize_rounding classifier_weights bn_running "
        "lr_changes cosine_start precision eval_center",
    ),
    "mmpretrain/resnext50_32x4d": ("", "decode_orientation classifier_weights bn_running last_batch_filled precision"),
    "torchvision/resnet50": ("", "classifier_bias bn_running decay_exempt lr_changes ema_steps precision"),
    "nvidia/resnet50_90": ("", "classifier_bias bn_running decay_exempt lr_changes precision"),
    "nvidia/resnet50_250": ("", "mix_partner classifier_bias bn_running decay_exempt lr_changes precision"),
    "timm/resnext50_32x4d_ra": (
        "augment.interpolation",
        "classifier_bias bn_running lr_changes cosine_start last_epochs precision",
    ),
    "rsb/resnet50_a2": (
        "augment.interpolation",
        "mix_partner classifier_bias bn_running lr_changes cosine_start precision",
    ),
    "ffcv/resnet50_16": (
        "augment.interpolation eval.interpolation",
        "images classifier_bias bn_running decay_exempt precision eval_order",
    ),
    "vgg16_bn": ("", "bn_running last_batch_filled precision"),
    "inception_v3": (
        "model.bn_momentum augment.interpolation train.batch_size ema.decay",
        "crop_attempts crop_position resize_antialias resize_alignment resize_rounding jitter_order brightness hue "
        "colours_clamped gray rmsprop_epsilon rmsprop_start precision eval_order",
    ),
}
"""What differs: recipe keys; points of the code."""


def points(recipe: Recipe, facts: RunFacts | None = None) -> set[str]:
    return {deviation.point for deviation in deviations(recipe, facts)}


@pytest.mark.parametrize("name", GOLDEN)
def test_a_recipe_departs_from_its_source_in_just_these_points(name: str) -> None:
    keys, code = GOLDEN[name]
    assert points(load_recipe(name)) == {*keys.split(), *(f"code.{point}" for point in code.split())}


OTHERS: dict[str, str] = {
    "model.weights": "x.pt",
    "model.blur_pool": "true",
    "model.stochastic_depth": "0.3",
    "model.zero_gamma": "",
    "model.conv_init": "fan_in",
    "model.bn_momentum": "0.2",
    "model.bn_epsilon": "1e-3",
    "data.source": "synthetic",
    "data.mean": "[0.4, 0.4, 0.4]",
    "data.std": "[0.2, 0.2, 0.2]",
    "augment.crop": "",
    "augment.size": "128",
    "augment.start_size": "96",
    "augment.repeats": "2",
    "augment.area": "[0.35, 1]",
    "augment.aspect": "[0.5, 2]",
    "augment.aspect_law": "",
    "augment.short_side": "[256, 300]",
    "augment.padding": "2",
    "augment.flip": "0.1",
    "augment.brightness": "0.1",
    "augment.contrast": "0.1",
    "augment.saturation": "0.1",
    "augment.lighting": "0.3",
    "augment.interpolation": "",
    "auto_augment.name": "",
    "auto_augment.num_ops": "1",
    "auto_augment.magnitude": "3",
    "auto_augment.magnitude_std": "0.1",
    "auto_augment.increasing": "false",
    "auto_augment.probability": "0.9",
    "auto_augment.interpolation": "bicubic",
    "erase.probability": "0.7",
    "erase.value": "",
    "erase.count": "2",
    "erase.area": "[0.1, 0.2]",
    "erase.aspect": "[0.5, 2]",
    "mix.mixup": "0.9",
    "mix.cutmix": "0.7",
    "mix.switch": "0.1",
    "optimizer.name": "adamw",
    "optimizer.lr": "0.33",
    "optimizer.lr_per_256": "0.33",
    "optimizer.momentum": "0.5",
    "optimizer.nesterov": "",
    "optimizer.beta1": "0.5",
    "optimizer.beta2": "0.5",
    "optimizer.epsilon": "1e-3",
    "optimizer.weight_decay": "3e-3",
    "optimizer.decay_1d": "",
    "optimizer.clip_norm": "7",
    "schedule.name": "exponential",
    "schedule.warmup": "2",
    "schedule.warmup_from": "0.5",
    "schedule.milestones": "[10, 20]",
    "schedule.factor": "0.3",
    "schedule.final": "0.001",
    "train.epochs": "33",
    "train.max_steps": "1000",
    "train.last_batch": "",
    "train.loss": "",
    "train.bce_threshold": "0.4",
    "train.label_smoothing": "0.3",
    "train.comm": "bf16",
    "train.micro_batch": "2",
    "train.batch_size": "512",
    "ema.decay": "0.9",
    "ema.every": "5",
    "ema.warmup": "1",
    "eval.protocol": "full",
    "eval.resize": "250",
    "eval.crop_ratio": "0.9",
    "eval.crop": "200",
    "eval.interpolation": "",
}
"""Another value of each key than the recipes below have; "" is the other one of two."""

TWO = {
    "model.zero_gamma": (True, False),
    "augment.crop": ("area", "pad"),
    "augment.aspect_law": ("log", "uniform"),
    "augment.interpolation": ("bilinear", "bicubic"),
    "eval.interpolation": ("bilinear", "bicubic"),
    "auto_augment.name": ("trivial_augment_wide", "randaugment"),
    "erase.value": ("constant", "pixel"),
    "optimizer.nesterov": (True, False),
    "optimizer.decay_1d": (True, False),
    "train.loss": ("bce", "cross_entropy"),
    "train.last_batch": ("keep", "drop"),
}

SMALL = {"augment.size": "24", "augment.start_size": "16", "eval.crop": "24", "eval.resize": "40"}
"""Of CIFAR's images."""

NEEDS = {
    "augment.start_size": ["augment.growth=[2,5]"],
    "train.loss": ["train.bce_threshold=null"],
}


COMPARED = ["resnext50_32x4d", "resnet34_shortcut_b", "cifar/resnet20", "pycls/resnext50_32x4d", "rsb/resnet50_a2"]
COMPARED += ["torchvision/resnet50"]


@functools.cache
def points_of(name: str) -> frozenset[str]:
    return frozenset(points(load_recipe(name)))


def stated_keys(name: str) -> list[str]:
    """Return the keys of a recipe that its reference states, those that already differ left out."""
    recipe = load_recipe(name)
    reference, held = reference_of(recipe), recipe.to_dict()
    assert reference is not None
    known = {f"{section}.{key}" for section, values in held.items() for key in values}
    left_out = {"augment.growth"}  # which goes with start_size
    if not recipe.erase.probability:
        left_out |= {"erase.value", "erase.count", "erase.area", "erase.aspect"}
    return sorted((known & reference.stated.keys()) - points_of(name) - left_out)


CHANGES = [(name, key) for name in COMPARED for key in stated_keys(name)]


def changed(name: str, key: str) -> Recipe:
    """Return a recipe with another value of one key."""
    recipe = load_recipe(name)
    section, _, field = key.partition(".")
    value = OTHERS[key]
    if not value:
        first, second = TWO[key]
        value = str(second if getattr(getattr(recipe, section), field) in (first, "auto") else first).lower()
    if "cifar" in name:
        value = SMALL.get(key, value)
    return load_recipe(name, [f"{key}={value}", *NEEDS.get(key, [])])


@pytest.mark.parametrize(("name", "key"), CHANGES)
def test_one_other_value_is_one_more_deviation(name: str, key: str) -> None:
    assert points(changed(name, key)) - points_of(name) == {key}


def test_every_key_is_compared_or_of_no_matter() -> None:
    """What no reference states says where and how a recipe is computed, which network it is, or is a detail of ours."""
    stated = {key for name in reference_names() for key in find_reference(name).stated}
    left_out = re.compile(
        r"checkpoint\..*|log\..*|data\.(?!source|mean|std).*"
        r"|model\.(arch|num_classes|depth|blocks|cardinality|base_width|width|shortcut|form|stem|residual|auxiliary_weight)"
        r"|train\.(precision|compile|layout|checkpoint_activations|deterministic|bucket_mb|max_skipped|patience|seed|reference)"
        r"|eval\.(every_epochs|batch_size|classes|labels|also|scales)"
        r"|schedule\.(patience|threshold|minimum)"
    )
    assert {key for key in all_keys() if key not in stated and not left_out.fullmatch(key)} == set()
    assert not {key for key in stated if left_out.fullmatch(key)}


@pytest.mark.parametrize("name", reference_names())
def test_references_state_known_points_with_a_source(name: str) -> None:
    reference = find_reference(name)
    known = {*all_keys(), *(f"{CODE}.{point}" for point in CODE_POINTS)}
    assert reference.stated.keys() <= known
    assert all(statement.source for statement in reference.stated.values())
    assert reference.title
    assert reference.about
    assert reference.images
    assert relevance._MATTERS.keys() <= known


def test_every_recipe_of_something_published_names_its_source() -> None:
    for entry in catalogue():
        unpublished = re.match(r"nothing", entry.reproduces) is not None
        assert (entry.recipe.train.reference is None) == unpublished, entry.name


def test_no_header_lists_deviations_by_hand() -> None:
    """What is computed cannot be forgotten; the files that name a source point to it."""
    for path in shipped_recipes().rglob("*.yaml"):
        text = path.read_text()
        assert "nown deviation" not in text, path
        shown = re.search(
            r"^# Where (?:it departs|these recipes depart) from that: resnext info --config (\S+)$", text, re.M
        )
        if path.name.startswith("_") and path.name != "_styles.yaml":
            assert shown, path
        if shown:
            assert path in [Path(layer.where) for layer in load_recipe_with_notes(shown[1]).layers]


def test_own_recipes_are_compared_with_the_source_of_their_base(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        "base: imagenet/_paper.yaml\nmodel: {arch: resnext50_32x4d}\n"
        "train: {epochs: 30}\nschedule: {name: cosine, warmup: 5}\n"
    )
    found = {deviation.point: deviation for deviation in deviations(load_recipe(str(file)))}
    assert found.keys() - points(load_recipe("resnext50_32x4d")) == {"train.epochs", "schedule.name", "schedule.warmup"}
    assert (found["train.epochs"].ours, found["train.epochs"].theirs) == ("30", "100")
    assert found["train.epochs"].kind == "recipe"
    assert found["schedule.name"].theirs == "step (milestones [30, 60, 90], factor 0.1)"
    assert found["code.resize_antialias"].kind == "code"


def test_a_recipe_without_a_source_has_no_list() -> None:
    assert deviations(load_recipe("smoke")) == []
    assert deviations(load_recipe("resnext50_32x4d", ["train.reference=null"])) == []


@pytest.mark.parametrize(
    ("wrong", "nearest"),
    [("resnext_torc", "resnext_torch"), ("rsb/a4", "rsb/a"), ("../pycls", "pycls"), ("_plain", "")],
)
def test_an_unknown_source_is_refused_with_the_nearest(wrong: str, nearest: str) -> None:
    with pytest.raises(InputError, match=rf"train\.reference: there is no such reference; did you mean .*{nearest}"):
        load_recipe("smoke", [f"train.reference={wrong}"])


def test_what_only_a_run_knows() -> None:
    recipe = load_recipe("resnext50_32x4d")
    plain = points(recipe)
    assert points(recipe, RunFacts("fp32", "exact", "packed")) == plain - {"code.precision"}
    lossy = {d.point: d for d in deviations(recipe, RunFacts("bf16", "raw", "packed in tier raw (lossy: 256)"))}
    assert lossy.keys() == plain | {"code.images"}
    assert lossy["code.images"].ours == "packed in tier raw (lossy: 256)"
    assert lossy["code.precision"].ours == "bf16"
    # 100 images make one batch of 100 of 256: under half, so it is dropped
    assert points(recipe, RunFacts(images=256 * 7 + 100)) == plain | {"train.last_batch"}
    nvidia = load_recipe("nvidia/resnet50_90")
    assert points(nvidia, RunFacts("fp16")) == points(nvidia) - {"code.precision"} | {"code.loss_scale"}


def test_durations_and_fractions_are_compared_by_what_they_mean() -> None:
    """The ResNet paper's 600,000 mini-batches of 256 are 120 epochs of 5,005 within 0.1 %."""
    assert "train.epochs" not in points(load_recipe("resnet34_shortcut_b"))
    assert "train.epochs" in points(load_recipe("resnet34_shortcut_b", ["train.epochs=119"]))
    recipe = load_recipe("resnext50_32x4d", ['schedule.milestones=["150150 steps", "60 epochs", 90]'])
    assert points(recipe) == points(load_recipe("resnext50_32x4d"))
    assert find_reference("resnext_torch/cifar").values["data.mean"] == [125.3 / 255, 123.0 / 255, 113.9 / 255]
    by_side = load_recipe("rsb/resnet50_a2", ["eval.resize=235"])  # floor(224 / 0.95)
    assert points(by_side) == points(load_recipe("rsb/resnet50_a2"))


def test_bottlenecks_of_the_resnet_paper_stride_elsewhere() -> None:
    deep, shallow = (load_recipe("resnet34_shortcut_b", [f"model.arch={arch}"]) for arch in ("resnet50", "resnet18"))
    assert points(deep) - points(shallow) == {"code.bottleneck_stride"}


def test_lines_fit_a_terminal_and_say_all() -> None:
    recipe = load_recipe("pycls/resnext50_32x4d")
    found, reference = deviations(recipe), find_reference("pycls")
    lines = deviation_lines(found, reference)
    assert lines[0] == "deviations from pycls's baselines (11):"
    assert max(map(len, lines)) <= 80
    text = " ".join(" ".join(lines).split())
    for deviation in found:
        assert " ".join([deviation.label, "here:", deviation.ours + ";", "there:", deviation.theirs]) in text
        assert f"({deviation.source})" in text
    assert deviation_lines([], replace(reference, notes=()))[0] == "deviations from pycls's baselines (none known)"


def test_the_page_lists_the_points_of_each_source() -> None:
    """docs/recipes.md names, for each source, the points of all recipes that are compared with it."""
    page = (Path(__file__).parents[3] / "docs/recipes.md").read_text()
    rows = re.findall(
        r"^\| (.+) \| (.+) \|$", page.partition("| Compared with | Points |\n|---|---|\n")[2], re.MULTILINE
    )
    told = {title: labels.split(", ") for titles, labels in rows for title in titles.split("; ")}
    shared: dict[str, list[str]] = {}
    for entry in catalogue():
        if reference := reference_of(entry.recipe):
            labels = [deviation.label for deviation in deviations(entry.recipe)]
            shared[reference.title] = [x for x in shared.get(reference.title, labels) if x in labels]
    assert {title: told.get(title) for title in shared} == shared
