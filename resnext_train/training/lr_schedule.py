"""The learning rate as a function of the step. Imports no torch.

Steps are counted from 0: `lr(n)` is used by the step that follows n finished ones.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

from resnext_train.config import (
    CosineSchedule,
    ExponentialSchedule,
    OptimizerSection,
    ScheduleSection,
    StepSchedule,
    duration_in_steps,
)


def build_schedule(
    section: ScheduleSection, optimizer: OptimizerSection, steps_per_epoch: int, total_steps: int
) -> Schedule:
    """Build the schedule of a recipe, with its durations converted to steps."""
    warmup = duration_in_steps(section.warmup, steps_per_epoch)
    if isinstance(section, StepSchedule):
        milestones = tuple(duration_in_steps(m, steps_per_epoch) for m in section.milestones)
        return StepDecay(optimizer.lr, warmup, milestones, section.factor)
    if isinstance(section, CosineSchedule):
        return Cosine(optimizer.lr, warmup, total_steps, section.final)
    if isinstance(section, ExponentialSchedule):
        every = max(1, duration_in_steps(section.every, steps_per_epoch))
        return Exponential(optimizer.lr, warmup, section.factor, every)
    return Plateau(optimizer.lr, warmup, section.factor, section.patience, section.threshold, section.minimum)


@dataclass
class Schedule(ABC):
    """A learning rate for every step. Only plateau has state; the others ignore what they observe."""

    peak: float
    warmup: int

    @abstractmethod
    def lr(self, step: int) -> float:
        """Return the learning rate of step `step`."""

    def observe(self, error: float) -> None:  # noqa: B027  most schedules have no use for it
        """Use a validation top-1 error in per cent."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:  # noqa: B027  nor a state
        pass

    def _rise(self, step: int) -> float:
        """Rise linearly from peak / warmup in the first step to the peak in step `warmup` - 1."""
        return min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0


@dataclass
class StepDecay(Schedule):
    """Multiplied by `factor` at each milestone (ResNeXt paper, section 4; ResNet paper, section 4.2)."""

    milestones: tuple[int, ...]
    factor: float

    def lr(self, step: int) -> float:
        return self.peak * self.factor ** sum(step >= m for m in self.milestones) * self._rise(step)


@dataclass
class Exponential(Schedule):
    """Multiplied by `factor` after every `every` steps (Inception-v3 paper, section 8)."""

    factor: float
    every: int

    def lr(self, step: int) -> float:
        return self.peak * self.factor ** (step // self.every) * self._rise(step)


@dataclass
class Cosine(Schedule):
    """Half a cosine from the peak to `final` between the warmup and `total` (SGDR paper, equation 5, one cycle)."""

    total: int
    final: float

    def lr(self, step: int) -> float:
        done = max(0, step - self.warmup) / max(1, self.total - self.warmup)
        return (self.final + (self.peak - self.final) * (1 + math.cos(math.pi * min(1.0, done))) / 2) * self._rise(step)


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
        return max(self.peak * self.factor**self.reductions, self.minimum) * self._rise(step)

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
