"""Metrics of training: on the device until a log line, then summed on the host; divided only when shown."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from resnext_train.compute.metrics import EvalCounts


@dataclass
class Totals:
    """Summed training loss, correct top-1 predictions and images seen."""

    loss: float = 0.0
    correct: int = 0
    seen: int = 0
    unreadable: int = 0
    """Images that could not be read and were replaced by others."""

    def add(self, results: Iterable[StepResult]) -> None:
        """Count the steps that were not skipped."""
        for result in results:
            if result.finite:
                self.loss += math.fsum(result.losses)
                self.correct += int(sum(result.correct))
                self.seen += result.images
                self.unreadable += int(result.unreadable)

    @property
    def mean_loss(self) -> float | None:
        """Loss per image, or None where nothing was seen."""
        return self.loss / self.seen if self.seen else None

    @property
    def top1(self) -> float | None:
        """Top-1 accuracy in per cent on augmented images, before each step's update; None where nothing was seen."""
        return 100 * self.correct / self.seen if self.seen else None


class StepResult(NamedTuple):
    """What a step of all ranks came to, on the host; steps are counted from 0."""

    step: int
    images: int
    finite: bool
    """Whether it changed anything."""
    overflowed: bool
    """Whether it did not, only because the loss scale of fp16 was too large."""
    losses: list[float]
    """Of each micro-batch, summed over its images."""
    correct: list[float]
    """Correct predictions of each micro-batch."""
    unreadable: float


class StepResults:
    """The results of steps, kept on the device until `read`, the only place where the host waits for it."""

    def __init__(self, micro_batches: int) -> None:
        self._micro_batches = micro_batches
        self._steps: list[tuple[int, int]] = []
        self._rows: list[Tensor] = []

    def add(self, step: int, images: int, row: Tensor) -> None:
        """Add a step's `row`, see StepSums.take_results. It is the same on all ranks."""
        self._steps.append((step, images))
        self._rows.append(row)

    def peek(self) -> list[StepResult]:
        """Wait for the device, and return the results since the last `read`."""
        results = []
        rows = torch.stack(self._rows).tolist() if self._rows else []
        for (step, images), row in zip(self._steps, rows, strict=True):
            losses, correct = row[: self._micro_batches], row[self._micro_batches : 2 * self._micro_batches]
            unreadable, finite, *searching = row[2 * self._micro_batches :]
            overflowed = not finite and any(searching)
            results.append(StepResult(step, images, bool(finite), overflowed, losses, correct, unreadable))
        return results

    def read(self) -> list[StepResult]:
        """Return what `peek` does, and forget it."""
        results = self.peek()
        self._steps, self._rows = [], []
        return results


class TrainMeter:
    """Training loss and accuracy since the last log line (`window`), over the running epoch (`epoch`) and the run.

    A step that was skipped does not count. Losses are summed in fp64 in the order of micro-batches, so that the same
    steps give the same sums on any number of ranks.
    """

    def __init__(self) -> None:
        self.window, self.epoch, self.run = Totals(), Totals(), Totals()

    def add(self, results: list[StepResult]) -> None:
        """Count steps in `window`, `epoch` and `run`."""
        for totals in (self.window, self.epoch, self.run):
            totals.add(results)

    def take_window(self) -> Totals:
        """Return the sums since the last log line, and begin the next window."""
        window, self.window = self.window, Totals()
        return window

    def end_epoch(self) -> None:
        """Begin the next epoch, and its first window."""
        self.window, self.epoch = Totals(), Totals()

    @property
    def unreadable(self) -> int:
        """Images of the run that could not be read."""
        return self.run.unreadable

    def state_dict(self) -> dict[str, Any]:
        return {"window": asdict(self.window), "epoch": asdict(self.epoch), "run": asdict(self.run)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.window, self.epoch = Totals(**state["window"]), Totals(**state["epoch"])
        self.run = Totals(**state["run"])


@dataclass(frozen=True)
class Evaluated:
    """What an evaluation counted."""

    counts: EvalCounts
    """On the validation images."""
    also: Mapping[str, EvalCounts]
    """On each set of eval.also."""
    ema: Evaluated | None = None
    """The same of the average of the weights; None: none is kept."""

    def to_dict(self) -> dict[str, Any]:
        """Return counts and percentages under their names in summary.json; those of the average are in `ema`."""
        return {**self.counts.to_dict(self.also), **({"ema": self.ema.to_dict()} if self.ema else {})}


def epoch_results(totals: Totals, evaluated: Evaluated | None) -> dict[str, Any]:
    """Return what an epoch's event says of training and of its evaluation, if there was one."""
    counts, values = evaluated and evaluated.counts, evaluated.to_dict() if evaluated else {}
    return {
        "train_loss": totals.mean_loss,
        "train_top1": totals.top1,
        "train_unreadable": totals.unreadable,
        "val_count": counts and counts.count,
        "val_top1_correct": counts and counts.top1_correct,
        "val_top5_correct": counts and counts.top5_correct,
        "val_loss": counts and counts.loss,
        "val_unreadable": counts and counts.unreadable,
        **{key: values[key] for key in ("also", "ema") if key in values},
    }


class Skipped(NamedTuple):
    """A step that changed nothing because it was not finite, counted from 0."""

    step: int
    micro_batches: list[int]
    """Those whose loss was not finite; none where only the gradient's norm or the statistics were not."""
    in_a_row: int
    """Skipped steps in a row, this one included."""


class FiniteWatch:
    """Counts the steps that were skipped."""

    def __init__(self) -> None:
        self.total, self.in_a_row = 0, 0
        self.overflows: list[int] = []
        """Steps of the last `add` that were skipped because the loss scale was too large: not faults."""

    def add(self, results: Iterable[StepResult]) -> list[Skipped]:
        """Return the skipped ones of the next steps but for `overflows`; update those, `total` and `in_a_row`.

        `overflows` are no part of a row of faults, and do not end one.
        """
        skipped = []
        self.overflows = []
        for result in results:
            if result.overflowed:
                self.overflows.append(result.step)
                continue
            self.in_a_row = 0 if result.finite else self.in_a_row + 1
            if not result.finite:
                self.total += 1
                at_fault = [number for number, loss in enumerate(result.losses) if not math.isfinite(loss)]
                skipped.append(Skipped(result.step, at_fault, self.in_a_row))
        return skipped

    def state_dict(self) -> dict[str, int]:
        return {"total": self.total, "in_a_row": self.in_a_row}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.total, self.in_a_row = state["total"], state["in_a_row"]
