from __future__ import annotations

import re

import pytest

from resnext_train.config import find_recipe, load_recipe, shipped_names
from resnext_train.data.sampler import StepPlan
from resnext_train.training.recipe_warnings import recipe_warnings

MIXED = ["mix.mixup=0.2", "mix.cutmix=1"]
LARGE = StepPlan(1_281_167, 64, 4)


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["erase.value=pixel", "erase.count=3"], r"^erase\.value and erase\.count have .* erase\.probability is 0$"),
        (["erase.value=pixel", "erase.probability=0.1"], None),
        (["erase.count=1"], None),
        (["mix.switch=0.3", "mix.cutmix=1"], r"^mix\.switch has no effect.* not both used$"),
        ([*MIXED, "mix.switch=0.3"], None),
        ([*MIXED, "mix.switch=1"], r"^mix\.switch is 1, so mix\.mixup has no effect$"),
        ([*MIXED, "mix.switch=0"], r"^mix\.switch is 0, so mix\.cutmix has no effect$"),
        (["ema.every=32"], r"^ema\.every has .* ema\.decay is null$"),
        (["ema.every=32", "ema.decay=0.9"], None),
        (["schedule.warmup=0 steps", "schedule.warmup_from=0.1"], r"^schedule\.warmup_from .* schedule\.warmup is 0$"),
        (["auto_augment.name=timm_randaugment", "auto_augment.probability=0"], r"^auto_augment\.probability is 0"),
        (["augment.start_size=48", "augment.growth=[0, 2]"], r"^augment\.start_size is augment\.size \(48\)"),
        (["schedule.name=linear", "schedule.points=[[0, 0], [4, 0]]"], r"^all factors of schedule\.points are 0"),
        (["optimizer.name=adamw"], r"^the learning rate 0\.025 suits SGD; .*adamw about 0\.001"),
        (["optimizer.name=lamb", "optimizer.lr_per_256=0.01"], None),
    ],
)
def test_values_without_effect_or_that_do_not_fit_are_told(overrides: list[str], told: str | None) -> None:
    warnings = recipe_warnings(load_recipe("smoke", overrides), LARGE)
    assert len(warnings) == (told is not None)
    assert not told or re.search(told, warnings[0])


@pytest.mark.parametrize(
    ("plan", "told"),
    [
        (StepPlan(1280, 64, 4, repeats=4), None),
        (StepPlan(1280, 64, 2, repeats=3), r"^augment\.repeats is 3 with 2 micro-batches .* statistics$"),
        (StepPlan(100, 64, 4, repeats=2), r"an epoch sees 50 different images, fewer than a step has \(64\)"),
        (StepPlan(50, 64, 4), None),
    ],
)
def test_repetitions_that_meet_too_often_are_told(plan: StepPlan, told: str | None) -> None:
    warnings = recipe_warnings(load_recipe("smoke"), plan)
    assert len(warnings) == (told is not None)
    assert not told or re.search(told, warnings[0])


def test_shipped_recipes_have_no_key_without_effect() -> None:
    for name in shipped_names():
        recipe = load_recipe(str(find_recipe(name)))
        train = recipe.train
        plan = StepPlan(1_281_167, train.batch_size, train.micro_batches, repeats=recipe.augment.repeats)
        assert recipe_warnings(recipe, plan) == [], name
