"""Warnings about values of a recipe that have no effect, or do not go together. Imports no torch."""

from __future__ import annotations

from resnext_train.config import LinearSchedule, Recipe, TimmRandAugment
from resnext_train.config.value_types import Section, amount_and_unit
from resnext_train.data.sampler import StepPlan

_LARGE_FOR_ADAPTIVE = 0.02
"""Learning rate beyond those of AdamW and LAMB in recipes for up to 2,048 images, of which the largest is 0.008."""


def recipe_warnings(recipe: Recipe, plan: StepPlan) -> list[str]:
    """Return a sentence for each cause of keys without effect, and for values that do not go together."""
    return [
        *_without_effect(recipe),
        *_contradictions(recipe),
        *_rate_of_another_optimizer(recipe),
        *_repetitions(recipe, plan),
    ]


def _without_effect(recipe: Recipe) -> list[str]:
    """Name keys that are not at their defaults, and have no effect because of another key."""
    r, (warmup, _) = recipe, amount_and_unit(recipe.schedule.warmup)
    table: list[tuple[str, Section, bool, str, tuple[str, ...]]] = [
        ("erase", r.erase, not r.erase.probability, "erase.probability is 0", ("value", "count", "area", "aspect")),
        ("mix", r.mix, not (r.mix.mixup and r.mix.cutmix), "mix.mixup and mix.cutmix are not both used", ("switch",)),
        ("ema", r.ema, r.ema.decay is None, "ema.decay is null", ("every", "warmup")),
        ("schedule", r.schedule, not warmup, "schedule.warmup is 0", ("warmup_from",)),
    ]
    found = []
    for section, values, idle, why, keys in table:
        fields = type(values).model_fields
        unused = [f"{section}.{key}" for key in keys if getattr(values, key) != fields[key].default]
        if idle and unused:
            found.append(f"{' and '.join(unused)} {'has' if len(unused) == 1 else 'have'} no effect, because {why}")
    if isinstance(r.auto_augment, TimmRandAugment) and not r.auto_augment.probability:
        found.append("auto_augment.probability is 0, so no operation is done")
    return found


def _contradictions(recipe: Recipe) -> list[str]:
    """Name values that undo one another."""
    mix, augment, schedule = recipe.mix, recipe.augment, recipe.schedule
    found = []
    if mix.mixup and mix.cutmix and mix.switch in (0, 1):
        found.append(f"mix.switch is {mix.switch:g}, so mix.{'mixup' if mix.switch else 'cutmix'} has no effect")
    if augment.start_size == augment.size:
        found.append(f"augment.start_size is augment.size ({augment.size}), so crops do not grow")
    if isinstance(schedule, LinearSchedule) and not any(factor for _, factor in schedule.points):
        found.append("all factors of schedule.points are 0, so the learning rate is 0 and nothing is learnt")
    return found


def _rate_of_another_optimizer(recipe: Recipe) -> list[str]:
    """Warn of SGD's learning rate with an optimizer whose steps do not shrink with the gradient."""
    optimizer, usual = recipe.optimizer, {"adamw": "0.001", "lamb": "0.005"}
    peak = optimizer.peak_lr(recipe.train.batch_size)
    large = _LARGE_FOR_ADAPTIVE * max(1, recipe.train.batch_size / 2048) ** 0.5
    if optimizer.name not in usual or peak < large:
        return []
    return [
        f"the learning rate {peak:g} suits SGD; with optimizer.name={optimizer.name} about {usual[optimizer.name]} is "
        "usual; set optimizer.lr"
    ]


def _repetitions(recipe: Recipe, plan: StepPlan) -> list[str]:
    repeats, found = plan.repeats, []
    if repeats > plan.micro_batches:
        mixed = ", and may be mixed with each other" if recipe.mix.mixup or recipe.mix.cutmix else ""
        found.append(
            f"augment.repeats is {repeats} with {plan.micro_batches} micro-batches in a step, so repetitions of an "
            f"image meet in a micro-batch: they share BatchNorm statistics{mixed}"
        )
    if repeats > 1 and plan.different_images < plan.batch_size:
        found.append(
            f"augment.repeats is {repeats}, so an epoch sees {plan.different_images:,} different images, fewer than a "
            f"step has ({plan.batch_size:,}); use more images or fewer repetitions"
        )
    return found
