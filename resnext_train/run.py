"""The parts of a training run: its setup, how far it is, and what it needs for the next step."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import nn
from torch.utils.data import DataLoader

from resnext_train.config import Recipe
from resnext_train.data.build import Evaluation, Splits, build_evaluation, build_splits, check_memory
from resnext_train.data.loader import Group, Report, Unreadable
from resnext_train.data.sampler import StepPlan
from resnext_train.data.source import Storage
from resnext_train.data.waiting import NOTICEABLE, WINDOW, Workers, slow_stage
from resnext_train.distributed import Agreement, Process
from resnext_train.errors import InputError
from resnext_train.precision import Precision, resolve_precision
from resnext_train.runlog import RunFolder, RunLog, tell
from resnext_train.saving import Saver
from resnext_train.schedules import Schedule, build_schedule
from resnext_train.signals import StopSignals
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
    process.together(lambda: check_memory(recipe, process, train=True))
    plan = StepPlan(len(splits.train), recipe.train.batch_size, recipe.train.groups)
    total = recipe.train.epochs * plan.steps_per_epoch
    total = min(total, recipe.train.max_steps or total)
    precision = resolve_precision(recipe.train.precision, process.device)
    return Setup(recipe, process, splits, evaluation, plan, total, precision)


TOO_MANY_FAILED = 2**31
"""What `Wishes.trouble` is when too many checkpoints in a row could not be written."""


class Wishes(NamedTuple):
    """What the processes agree on at a boundary."""

    signal: int
    """Number of a signal to stop, or 0."""
    save: bool | int
    """Whether it is time for a checkpoint."""
    trouble: int
    """What the first process must tell the others of its checkpoints: 0, the epoch of a best one that could not be
    written, or TOO_MANY_FAILED."""


@dataclass
class Progress:
    """How far a run is, as its checkpoints remember it."""

    step: int = 0
    epoch_is_open: bool = False
    """Whether the epoch that `step` ended is still to be evaluated: the run was stopped in the middle of that."""
    seconds: float = 0.0
    epoch_began: float = 0.0
    """`seconds` when the running epoch began."""
    best: dict[str, Any] | None = None
    last: dict[str, Any] | None = None


class Lap(NamedTuple):
    """What passed since the last lap: seconds, seconds waited for data, steps, images, and the loader's reports."""

    seconds: float
    waited: float
    steps: int
    images: int
    report: Report


class Clock:
    """Seconds, seconds waited for data, images and the loader's reports since the last lap."""

    def __init__(self) -> None:
        now = time.perf_counter()
        self._steps, self._images, self._waited, self._lap = 0, 0, 0.0, now
        self._reports: list[Report] = []

    def timed(self, groups: Iterator[Group]) -> Iterator[Group]:
        """`groups`, counting the time spent waiting for the next."""
        while True:
            asked = time.perf_counter()
            group = next(groups, None)
            self._waited += time.perf_counter() - asked
            if group is None:
                return
            self._reports.append(group.report)
            yield group

    def took(self, images: int) -> None:
        """Count a step of `images` images."""
        self._steps += 1
        self._images += images

    def lap(self) -> Lap:
        """End a lap and start the next."""
        now = time.perf_counter()
        result = Lap(now - self._lap, self._waited, self._steps, self._images, Report.sum(self._reports))
        self._lap, self._waited, self._steps, self._images, self._reports = now, 0.0, 0, 0, []
        return result


class DataWait:
    """Watches over how long steps wait for their images."""

    def __init__(self, workers: Workers, storage: Storage) -> None:
        self._workers, self._storage = workers, storage
        self._told: set[str] = set()
        self._started = False
        self._start()

    def _start(self) -> None:
        self._laps: list[Lap] = []

    def add(self, lap: Lap) -> dict[str, Any] | None:
        """Take note of a lap; what to log if over the last hundred steps the wait was long.

        The first lap of a run is not counted: it waits for the loader processes to start.
        """
        if not self._started:
            self._started = True
            return None
        self._laps.append(lap)
        steps = sum(lap.steps for lap in self._laps)
        if steps < WINDOW:
            return None
        seconds = sum(lap.seconds for lap in self._laps)
        wait = sum(lap.waited for lap in self._laps) / seconds
        report = Report.sum([lap.report for lap in self._laps])
        self._start()
        if wait <= NOTICEABLE:
            return None
        stage, remedy = slow_stage(report, seconds, self._workers, self._storage)
        if stage in self._told:
            return None
        self._told.add(stage)
        text = f"data-wait {100 * wait:.0f} % over {steps} steps: the loader is too slow, {remedy}"
        return {"data_wait": wait, "stage": stage, "text": text}


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
    data_wait: DataWait
    saver: Saver
    """Used by the first process alone."""
    signals: StopSignals
    agreement: Agreement
    clock: Clock = field(default_factory=Clock)
    saved_at: float = field(default_factory=time.monotonic)
    """When the last checkpoint was begun."""
    trouble: int = 0
    """What the first process is still to tell the others, see Wishes."""
    best_before: dict[str, Any] | None = None
    """The best evaluation before `progress.best`."""

    def tell_unreadable(self, text: str) -> None:
        """Log what could not be read; the first process has the log, the others can but say it."""
        if self.setup.process.is_main:
            self.log.write("unreadable", step=self.progress.step, text=text)
        else:
            tell(f"process {self.setup.process.rank}: {text}")

    @property
    def model(self) -> nn.Module:
        """The bare network."""
        return self.step.model
