"""Warnings about a recipe whose schedules do not fit its run. Imports no torch."""

from __future__ import annotations

from resnext_train.config import (
    CosineSchedule,
    ExponentialSchedule,
    LinearSchedule,
    PlateauSchedule,
    Recipe,
    StepSchedule,
    duration_in_steps,
)
from resnext_train.training.lr_schedule import Warmup

_MOST_OF_FIRST_WEIGHTS = 0.1
"""Share of an average that is no mistake: the recipes with published results end far below."""


def schedule_warnings(recipe: Recipe, steps_per_epoch: int, total_steps: int) -> list[str]:
    """Return a sentence for each part of the schedules, and of `ema`, that does not fit a run of `total_steps`."""
    section, augment = recipe.schedule, recipe.augment
    ends = f"the run ends after {_length(steps_per_epoch, total_steps)}"
    peak = recipe.optimizer.peak_lr(recipe.train.batch_size)
    found = []
    warmup = duration_in_steps(section.warmup, steps_per_epoch)
    if total_steps <= warmup:
        is_reached = Warmup(warmup, section.warmup_from).factor(total_steps - 1) == 1
        found.append(
            f"{ends}, within the warm-up of {warmup} steps (schedule.warmup={section.warmup}); the learning rate "
            f"{'only comes up to' if is_reached else 'does not reach'} {peak:g}"
        )
    if isinstance(section, StepSchedule):
        found += _milestone_warnings(section, steps_per_epoch, total_steps, peak)
    elif isinstance(section, CosineSchedule) and section.final > peak:
        found.append(f"schedule.final={section.final:g} is above the learning rate {peak:g}; so it rises")
    elif isinstance(section, ExponentialSchedule):
        if duration_in_steps(section.every, steps_per_epoch) >= total_steps:
            found.append(f"{ends}, before schedule.every={section.every}; so the learning rate never falls")
    elif isinstance(section, LinearSchedule):
        last = section.points[-1][0]
        if duration_in_steps(last, steps_per_epoch) > total_steps:
            found.append(
                f"{ends}, before the last of schedule.points ({last}); so the schedule does not come to its end"
            )
    elif isinstance(section, PlateauSchedule):
        evaluations = -(-total_steps // (steps_per_epoch * recipe.eval.every_epochs))
        needed = section.patience + 2  # the first one is the best so far, and patience + 1 others must be no better
        if evaluations <= needed:
            found.append(
                f"{ends} and {evaluations} evaluations, but schedule.patience={section.patience} lets the learning "
                f"rate fall after {needed} at the earliest; so it never falls"
            )
    last_size = augment.size_in((total_steps - 1) // steps_per_epoch)
    if last_size < augment.size:
        found.append(f"{ends}, within augment.growth; so crops only grow to {last_size} of {augment.size} pixels")
    return found + _average_warnings(recipe, steps_per_epoch, total_steps)


def _milestone_warnings(section: StepSchedule, steps_per_epoch: int, total_steps: int, peak: float) -> list[str]:
    warmup = duration_in_steps(section.warmup, steps_per_epoch)
    milestones = [f"{m:g}" if isinstance(m, float) else m for m in section.milestones]
    steps = [duration_in_steps(m, steps_per_epoch) for m in section.milestones]
    late = [milestone for milestone, step in zip(milestones, steps, strict=True) if step >= total_steps]
    early = [milestone for milestone, step in zip(milestones, steps, strict=True) if step < warmup < total_steps]
    found = []
    if late:
        ends = f"the run ends after {_length(steps_per_epoch, total_steps)}"
        never = "so the learning rate never falls" if len(late) == len(steps) else "so its last falls do not come"
        found.append(f"{ends}, before schedule.milestones {', '.join(late)}; {never}")
    if early:
        found.append(
            f"the warm-up lasts for schedule.warmup={section.warmup}, beyond schedule.milestones {', '.join(early)}; "
            f"so the learning rate falls before it has come to {peak:g}"
        )
    if len(set(steps)) < len(steps):
        found.append(
            f"schedule.milestones {', '.join(milestones)} has equal ones, at which the learning rate falls twice"
        )
    return found


def _average_warnings(recipe: Recipe, steps_per_epoch: int, total_steps: int) -> list[str]:
    section, ends = recipe.ema, f"the run ends after {_length(steps_per_epoch, total_steps)}"
    if section.decay is None:
        return []
    if section.every > total_steps:
        return [f"{ends}, before the first update of ema.every={section.every}; so the average stays as it begins"]
    # The updates after the warm-up, of which the first one copies as well.
    updates = total_steps // section.every - duration_in_steps(section.warmup, steps_per_epoch) // section.every
    if updates <= 0:
        return [f"{ends}, within ema.warmup={section.warmup}; so the average only copies the weights"]
    first = section.decay ** (updates - 1)
    if first > _MOST_OF_FIRST_WEIGHTS:
        return [
            f"{ends}, in which an average with ema.decay={section.decay:g} and ema.every={section.every} moves little: "
            f"{100 * first:.0f} % of it are still the first weights that it took; lower ema.decay or ema.every"
        ]
    return []


def _length(steps_per_epoch: int, steps: int) -> str:
    epochs, rest = divmod(steps, steps_per_epoch)
    number, unit = (steps, "step") if rest else (epochs, "epoch")
    return f"{number} {unit}" if number == 1 else f"{number} {unit}s"
