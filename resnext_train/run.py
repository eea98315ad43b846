"""The parts of a training run: its setup, how far it is, and what it needs for the next step."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import nn
from torch.utils.data import DataLoader

from resnext_train.config import Recipe
from resnext_train.data.build import Evaluation, Splits, build_evaluation, build_splits
from resnext_train.data.loader import Group, Unreadable
from resnext_train.data.sampler import StepPlan
from resnext_train.distributed import Process
from resnext_train.errors import InputError
from resnext_train.precision import Precision, resolve_precision
from resnext_train.runlog import RunFolder, RunLog
from resnext_train.schedules import Schedule, build_schedule
from resnext_train.step import TrainStep


@dataclass(frozen=True)
class Setup:
    """A recipe on the data and the processes it will run with; all durations are in steps from here on."""

    recipe: Recipe
    process: Process
    splits: Splits
    evaluation: Evaluation
    plan: StepPlan
    total_steps: int
    precision: Precision

    @property
    def num_classes(self) -> int:
        """Outputs of the network."""
        return len(self.splits.classes)

    def schedule(self) -> Schedule:
        """The learning rate over the run."""
        r = self.recipe
        return build_schedule(r.schedule, r.optimizer, self.plan.steps_per_epoch, self.total_steps)

    def epoch_of(self, step: int) -> int:
        """The epoch, counted from 1, that step number `step` belongs to."""
        return step // self.plan.steps_per_epoch + 1


def set_up(recipe: Recipe, process: Process) -> Setup:
    """Find the data and work out what the recipe means for it.

    Raises:
        InputError: missing or unfit data, a class count that disagrees with it, too little data for a step.
    """
    splits = process.host_first(lambda: build_splits(recipe.data))
    wanted = recipe.model.num_classes
    if wanted not in ("auto", len(splits.classes)):
        raise InputError(
            f"model.num_classes is {wanted} but the data has {len(splits.classes)} classes; correct it or use auto"
        )
    evaluation = process.together(lambda: build_evaluation(recipe.eval, splits.val, splits.classes))
    plan = StepPlan(len(splits.train), recipe.train.batch_size, recipe.train.groups)
    total = recipe.train.epochs * plan.steps_per_epoch
    total = min(total, recipe.train.max_steps or total)
    precision = resolve_precision(recipe.train.precision, process.device)
    return Setup(recipe, process, splits, evaluation, plan, total, precision)


@dataclass
class Progress:
    """How far a run is, as its checkpoints remember it."""

    step: int = 0
    seconds: float = 0.0
    best: dict[str, Any] | None = None
    last: dict[str, Any] | None = None


class Clock:
    """Seconds, seconds waited for data, and images since the last lap."""

    def __init__(self) -> None:
        now = time.perf_counter()
        self.images, self._waited, self._lap, self._epoch = 0, 0.0, now, now

    def timed(self, groups: Iterator[Group]) -> Iterator[Group]:
        """`groups`, counting the time spent waiting for the next."""
        while True:
            asked = time.perf_counter()
            group = next(groups, None)
            self._waited += time.perf_counter() - asked
            if group is None:
                return
            yield group

    def lap(self) -> tuple[float, float, int]:
        """Seconds, seconds waited and images since the last lap; starts the next."""
        now = time.perf_counter()
        result = now - self._lap, self._waited, self.images
        self._lap, self._waited, self.images = now, 0.0, 0
        return result

    def epoch_seconds(self) -> float:
        """Seconds since the last call, or since the start."""
        now = time.perf_counter()
        self._epoch, seconds = now, now - self._epoch
        return seconds


@dataclass
class Run:
    """A run in progress: what it needs for the next step and what it writes to."""

    setup: Setup
    folder: RunFolder
    log: RunLog
    step: TrainStep
    schedule: Schedule
    val_loader: DataLoader[Group | Unreadable]
    progress: Progress
    clock: Clock = field(default_factory=Clock)

    @property
    def model(self) -> nn.Module:
        """The bare network."""
        return self.step.model
