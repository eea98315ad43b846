"""The curves of a run as numbers: against epochs, thinned to a few hundred points. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resnext_train.report.run_record import RunRecord
from resnext_train.report.run_values import RunValues, number
from resnext_train.run_dir.sink import Event

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Curve:
    """Points of a curve, by x; there may be none."""

    x: Values
    """Epochs, (n,)."""
    y: Values
    """(n,)."""

    def __len__(self) -> int:
        return len(self.x)


@dataclass(frozen=True)
class ErrorCurves:
    """Top-1 errors in per cent at the ends of epochs."""

    train: Curve
    """On the augmented images of training, as the network was at each step."""
    validation: Curve
    average: Curve
    """On the validation images, with the average of the weights; empty where the run keeps none."""

    def all(self) -> tuple[Curve, Curve, Curve]:
        return self.train, self.validation, self.average


_LARGEST = 1e15
"""Numbers that are not smaller come from damaged files, and no axis could show them."""


def numbers(values: Sequence[Any]) -> Values:
    """Return numbers, (n,), and NaN for anything else, as a damaged file may hold."""
    found: Values | None = None
    if set(map(type, values)) <= {int, float}:  # of 50,000 lines in a few milliseconds
        with suppress(OverflowError):
            found = np.array(values, np.float64)
    if found is None:
        found = np.array([np.nan if (x := number(value)) is None else x for value in values], np.float64)
    found[~(np.abs(found) < _LARGEST)] = np.nan
    return found


def error_curves(record: RunRecord) -> ErrorCurves:
    """Return the errors of a run's epochs; those that were not evaluated have a training error alone."""
    epochs = record.epochs
    at = numbers([event.get("epoch") for event in epochs])
    counts = numbers([event.get("val_count") for event in epochs])
    counts[~(counts >= 1)] = np.nan
    correct = numbers([event.get("val_top1_correct") for event in epochs])
    averages = [event.get("ema") for event in epochs]
    average = numbers([value.get("top1") if isinstance(value, dict) else None for value in averages])
    return ErrorCurves(
        train=_curve(at, _errors(numbers([event.get("train_top1") for event in epochs]))),
        validation=_curve(at, _errors(100 * correct / counts)),
        average=_curve(at, _errors(average)),
    )


def _errors(accuracies: Values) -> Values:
    """Return the errors of accuracies, in per cent; NaN for what is none."""
    return np.where((accuracies >= 0) & (accuracies <= 100), 100 - accuracies, np.nan)


def step_curve(record: RunRecord, key: str, scale: float = 1.0) -> Curve:
    """Return `scale` times what the step events have under `key`."""
    return _curve(_places(record, record.steps), scale * numbers([event.get(key) for event in record.steps]))


def skipped_steps(record: RunRecord) -> list[Event]:
    """Return the events of steps that changed nothing, since they were not finite."""
    return [event for event in record.events if event["event"] == "skipped"]


def skipped_curve(record: RunRecord) -> Curve:
    """Return how many steps were skipped so far, from the run's start to its last event."""
    at = np.sort(_places(record, skipped_steps(record)))
    at = at[np.isfinite(at)]
    last = max(record.events, key=lambda event: event["step"], default=None)
    ends = _places(record, [] if last is None else [last])
    end = max([0.0, *at.tolist(), *ends[np.isfinite(ends)].tolist()])
    return Curve(np.array([0.0, *at, end]), np.array([*range(len(at) + 1), len(at)], np.float64))


def _places(record: RunRecord, events: Sequence[Event]) -> Values:
    """Return where events are on the axis of epochs: exactly, or at their epoch where no steps per epoch are known."""
    per_epoch = number(record.start.get("steps_per_epoch")) or _steps_per_epoch(record)
    if per_epoch is None or per_epoch < 1:
        return numbers([event.get("epoch") for event in events])
    return numbers([event["step"] for event in events]) / per_epoch


def _steps_per_epoch(record: RunRecord) -> float | None:
    """Return the steps of an epoch as its event tells them, where no start event has them."""
    for event in record.epochs:
        epoch, step = number(event.get("epoch")), number(event.get("step"))
        if epoch and step:
            return step / epoch
    return None


def _curve(x: Values, y: Values) -> Curve:
    known = np.isfinite(x) & np.isfinite(y)
    order = np.argsort(x[known], kind="stable")
    return Curve(x[known][order], y[known][order])


def thinned(curve: Curve, most: int) -> Curve:
    """Return a curve of at most `most` points, means of as many neighbours each, between the same ends.

    Where the bins cannot have equally many points, some have one more.
    """
    n = len(curve)
    if n <= most:
        return curve
    ends = np.linspace(0, n, most + 1).round().astype(int)
    counts = np.diff(ends)
    x, y = (np.add.reduceat(values, ends[:-1]) / counts for values in (curve.x, curve.y))
    x[0], x[-1] = curve.x[0], curve.x[-1]
    return Curve(x, y)


def points_for(curves: int) -> int:
    """Return how many points a curve may have in a figure of so many curves: a figure has some 9,000, 120 KB."""
    return max(60, min(300, 9000 // max(curves, 1)))


def by_accuracy(runs: Sequence[RunValues]) -> list[int]:
    """Return the numbers of the runs, the most accurate first; those without an evaluation come last."""
    return sorted(range(len(runs)), key=lambda i: (-(best.accuracy if (best := runs[i].best) else -1.0), i))
