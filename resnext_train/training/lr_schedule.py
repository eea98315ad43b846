"""The learning rate as a function of the step. Imports no torch.

Steps are counted from 0: `lr(n)` is used by the step that follows n finished ones.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from resnext_train.config import (
    CosineSchedule,
    ExponentialSchedule,
    LinearSchedule,
    ScheduleSection,
    StepSchedule,
    duration_in_steps,
)
from resnext_train.errors import InputError


def build_schedule(section: ScheduleSection, peak: float, steps_per_epoch: int, total_steps: int) -> Schedule:
    """Build the schedule of a recipe with the learning rate `peak`; its durations are converted to steps.

    Raises:
        InputError: points in epochs and points in steps are not in ascending order.
    """
    warmup = Warmup(duration_in_steps(section.warmup, steps_per_epoch), section.warmup_from)
    if isinstance(section, StepSchedule):
        milestones = tuple(duration_in_steps(m, steps_per_epoch) for m in section.milestones)
        return StepDecay(peak, warmup, milestones, section.factor)
    if isinstance(section, CosineSchedule):
        return Cosine(peak, warmup, total_steps, section.final)
    if isinstance(section, ExponentialSchedule):
        every = max(1, duration_in_steps(section.every, steps_per_epoch))
        return Exponential(peak, warmup, section.factor, every)
    if isinstance(section, LinearSchedule):
        return PiecewiseLinear(peak, warmup, _points_in_steps(section, steps_per_epoch))
    return Plateau(peak, warmup, section.factor, section.patience, section.threshold, section.minimum)


def _points_in_steps(section: LinearSchedule, steps_per_epoch: int) -> tuple[tuple[int, float], ...]:
    points = tuple((duration_in_steps(when, steps_per_epoch), factor) for when, factor in section.points)
    for place, ((before, _), (after, _)) in enumerate(pairwise(points)):
        if after < before:
            begin, end = section.points[place][0], section.points[place + 1][0]
            raise InputError(
                f"schedule.points: {end} (step {after}) stands after {begin} (step {before}), with {steps_per_epoch} "
                "steps an epoch; put them in ascending order"
            )
    return points


@dataclass(frozen=True)
class Warmup:
    """A linear rise of the learning rate in the first `steps`."""

    steps: int
    start: float | None = None
    """Factor in the first step, from which it rises to 1 in step `steps`. None: 1 / `steps`, and 1 one step earlier."""

    def factor(self, step: int) -> float:
        """Return the factor on the learning rate of a step."""
        if step >= self.steps:
            return 1.0
        if self.start is None:
            return (step + 1) / self.steps
        return self.start + (1 - self.start) * step / self.steps


@dataclass
class Schedule(ABC):
    """A learning rate for every step. Only plateau has state; the others ignore what they observe."""

    peak: float
    warmup: Warmup

    @abstractmethod
    def lr(self, step: int) -> float:
        """Return the learning rate of step `step`."""

    def observe(self, error: float) -> None:  # noqa: B027  most schedules have no use for it
        """Use a validation top-1 error in per cent."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:  # noqa: B027  nor a state
        pass


@dataclass
class StepDecay(Schedule):
    """Multiplied by `factor` at each milestone (ResNeXt paper, section 4; ResNet paper, section 4.2)."""

    milestones: tuple[int, ...]
    factor: float

    def lr(self, step: int) -> float:
        return self.peak * self.factor ** sum(step >= m for m in self.milestones) * self.warmup.factor(step)


@dataclass
class Exponential(Schedule):
    """Multiplied by `factor` after every `every` steps (Inception-v3 paper, section 8)."""

    factor: float
    every: int

    def lr(self, step: int) -> float:
        return self.peak * self.factor ** (step // self.every) * self.warmup.factor(step)


@dataclass
class Cosine(Schedule):
    """Half a cosine from the peak to `final` between the warmup and `total` (SGDR paper, equation 5, one cycle)."""

    total: int
    final: float

    def lr(self, step: int) -> float:
        warmup = self.warmup.steps
        done = max(0, step - warmup) / max(1, self.total - warmup)
        cosine = (1 + math.cos(math.pi * min(1.0, done))) / 2
        return (self.final + (self.peak - self.final) * cosine) * self.warmup.factor(step)


@dataclass
class PiecewiseLinear(Schedule):
    """The peak times a factor that is linear between points of (step, factor); constant before and after them."""

    points: tuple[tuple[int, float], ...]

    def lr(self, step: int) -> float:
        factor = self.points[0][1]
        for (begin, before), (end, after) in pairwise(self.points):
            if step >= begin:
                done = min(1.0, (step - begin) / (end - begin)) if end > begin else 1.0
                factor = before + (after - before) * done
        return self.peak * factor * self.warmup.factor(step)


@dataclass
class Plateau(Schedule):
    """Multiplied by `factor` when the observed error has not improved for more than `patience` observations."""

    factor: float
    patience: int
    threshold: float
    minimum: float
    best: float = field(default=math.inf, init=False)
    stale: int = field(default=0, init=False)
    reductions: int = field(default=0, init=False)

    def lr(self, step: int) -> float:
        return max(self.peak * self.factor**self.reductions, self.minimum) * self.warmup.factor(step)

    def observe(self, error: float) -> None:
        """Reduce after more than `patience` observations in a row without improvement."""
        if error < self.best - self.threshold:
            self.best, self.stale = error, 0
            return
        self.stale += 1
        if self.stale > self.patience:
            self.reductions, self.stale = self.reductions + 1, 0

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "stale": self.stale, "reductions": self.reductions}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best, self.stale, self.reductions = state["best"], state["stale"], state["reductions"]
