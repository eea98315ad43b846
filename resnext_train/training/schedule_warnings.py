"""Warnings about a recipe whose schedules are longer than its run. Imports no torch."""

from __future__ import annotations

from resnext_train.config import (
    ExponentialSchedule,
    LinearSchedule,
    PlateauSchedule,
    Recipe,
    StepSchedule,
    duration_in_steps,
)
from resnext_train.training.lr_schedule import Warmup


def schedule_warnings(recipe: Recipe, steps_per_epoch: int, total_steps: int) -> list[str]:
    """Return a sentence for each part of the schedules, and of `ema`, that a run of `total_steps` does not reach."""
    section = recipe.schedule
    ends = f"the run ends after {_length(steps_per_epoch, total_steps)}"
    found = []
    warmup = duration_in_steps(section.warmup, steps_per_epoch)
    if total_steps <= warmup:
        is_reached = Warmup(warmup, section.warmup_from).factor(total_steps - 1) == 1
        peak = recipe.optimizer.peak_lr(recipe.train.batch_size)
        found.append(
            f"{ends}, within the warm-up of {warmup} steps (schedule.warmup={section.warmup}); the learning rate "
            f"{'only comes up to' if is_reached else 'does not reach'} {peak:g}"
        )
    if isinstance(section, StepSchedule):
        steps = {m: duration_in_steps(m, steps_per_epoch) for m in section.milestones}
        late = [str(f"{m:g}" if isinstance(m, float) else m) for m, step in steps.items() if step >= total_steps]
        never = "so the learning rate never falls" if len(late) == len(steps) else "so its last falls do not come"
        if late:
            found.append(f"{ends}, before schedule.milestones {', '.join(late)}; {never}")
    elif isinstance(section, ExponentialSchedule):
        every = duration_in_steps(section.every, steps_per_epoch)
        if every >= total_steps:
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
    augment = recipe.augment
    last_size = augment.size_in((total_steps - 1) // steps_per_epoch)
    if last_size < augment.size:
        found.append(f"{ends}, within augment.growth; so crops only grow to {last_size} of {augment.size} pixels")
    return found + _average_warnings(recipe, steps_per_epoch, total_steps)


def _average_warnings(recipe: Recipe, steps_per_epoch: int, total_steps: int) -> list[str]:
    section, ends = recipe.ema, f"the run ends after {_length(steps_per_epoch, total_steps)}"
    if section.decay is None:
        return []
    if section.every > total_steps:
        return [f"{ends}, before the first update of ema.every={section.every}; so the average stays as it begins"]
    if duration_in_steps(section.warmup, steps_per_epoch) >= total_steps:
        return [f"{ends}, within ema.warmup={section.warmup}; so the average only copies the weights"]
    return []


def _length(steps_per_epoch: int, steps: int) -> str:
    epochs, rest = divmod(steps, steps_per_epoch)
    number, unit = (steps, "step") if rest else (epochs, "epoch")
    return f"{number} {unit}" if number == 1 else f"{number} {unit}s"
