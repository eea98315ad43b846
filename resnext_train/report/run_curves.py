"""The curves of a run, as numbers that plots show: against epochs, thinned to a few hundred points. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resnext_train.report.run_record import RunRecord
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


@dataclass(frozen=True)
class BestResult:
    """A run's best evaluation, in counts."""

    correct: int
    count: int
    epoch: int | None

    @property
    def accuracy(self) -> float:
        """In per cent."""
        return 100 * self.correct / self.count


def number(value: Any) -> float | None:
    """Return a finite number of a JSON file; None for anything else, as a damaged one may hold."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:  # an integer of hundreds of digits
        return None


def error_curves(record: RunRecord) -> ErrorCurves:
    """Return the errors of a run's epochs; those that were not evaluated have a training error alone."""
    return ErrorCurves(
        train=_epoch_curve(record, lambda event: _error(event.get("train_top1"))),
        validation=_epoch_curve(record, _validation_error),
        average=_epoch_curve(record, lambda event: _average_error(event.get("ema"))),
    )


def _epoch_curve(record: RunRecord, value: Callable[[Event], float | None]) -> Curve:
    return _curve((number(event.get("epoch")), value(event)) for event in record.epochs)


def _error(accuracy: Any) -> float | None:
    found = number(accuracy)
    return None if found is None else 100 - found


def _validation_error(event: Mapping[str, Any]) -> float | None:
    count, correct = number(event.get("val_count")), number(event.get("val_top1_correct"))
    return 100 - 100 * correct / count if count and correct is not None else None


def _average_error(average: Any) -> float | None:
    return _error(average.get("top1")) if isinstance(average, dict) else None


def step_curve(record: RunRecord, key: str, scale: float = 1.0) -> Curve:
    """Return `scale` times what the step events have under `key`."""
    place = _epochs_of_steps(record)
    values = ((place(event), number(event.get(key))) for event in record.steps)
    return _curve((x, None if y is None else scale * y) for x, y in values)


def skipped_steps(record: RunRecord) -> list[Event]:
    """Return the events of steps that changed nothing, since they were not finite."""
    return [event for event in record.events if event["event"] == "skipped"]


def skipped_curve(record: RunRecord) -> Curve:
    """Return how many steps were skipped so far, from the run's start to its last event."""
    place = _epochs_of_steps(record)
    at = sorted(x for event in skipped_steps(record) if (x := place(event)) is not None)
    end = max((x for event in record.events if (x := place(event)) is not None), default=0.0)
    return Curve(np.array([0.0, *at, max([end, *at])]), np.array([0.0, *range(1, len(at) + 1), float(len(at))]))


def _epochs_of_steps(record: RunRecord) -> Callable[[Event], float | None]:
    """Return what places an event on the axis of epochs: exactly, or at its epoch where no steps per epoch are known."""
    per_epoch = number(record.start.get("steps_per_epoch")) or _steps_per_epoch(record)
    if per_epoch is None or per_epoch <= 0:
        return lambda event: number(event.get("epoch"))
    return lambda event: None if (step := number(event.get("step"))) is None else step / per_epoch


def _steps_per_epoch(record: RunRecord) -> float | None:
    """Return the steps of an epoch as its event tells them, where no start event has them."""
    for event in record.epochs:
        epoch, step = number(event.get("epoch")), number(event.get("step"))
        if epoch and step:
            return step / epoch
    return None


def _curve(points: Any) -> Curve:
    known = sorted((x, y) for x, y in points if x is not None and y is not None)
    return Curve(np.array([x for x, _ in known], np.float64), np.array([y for _, y in known], np.float64))


def thinned(curve: Curve, most: int) -> Curve:
    """Return a curve of at most `most` points, at least 3: its first, its last, and means of equally many between.

    The mean over the points between stays what it was where these divide evenly; a bin has one more than others else.
    """
    n = len(curve)
    if n <= most:
        return curve
    ends = np.linspace(1, n - 1, most - 1).round().astype(int)
    counts = np.diff(ends)

    def means(values: Values) -> Values:
        inner = np.add.reduceat(values[: n - 1], ends[:-1]) / counts
        return np.concatenate((values[:1], inner, values[-1:]))

    return Curve(means(curve.x), means(curve.y))


def points_for(curves: int) -> int:
    """Return how many points a curve may have in a figure of so many curves: a figure has some 9,000, 120 KB."""
    return max(60, min(300, 9000 // max(curves, 1)))


def best_result(record: RunRecord) -> BestResult | None:
    """Return the best evaluation by its counts; of a run without summary, that of the best logged epoch."""
    best = record.best
    found = _result(best, "top1_correct", "count") if isinstance(best, Mapping) else None
    if found is not None:
        return found
    results = [_result(event, "val_top1_correct", "val_count") for event in record.epochs]
    return max((r for r in results if r), key=lambda r: r.accuracy, default=None)


def _result(values: Mapping[str, Any], correct: str, count: str) -> BestResult | None:
    right, of, epoch = number(values.get(correct)), number(values.get(count)), number(values.get("epoch"))
    if right is None or not of or not 0 <= right <= of:
        return None
    return BestResult(int(right), int(of), None if epoch is None else int(epoch))


def by_accuracy(records: Sequence[RunRecord]) -> list[int]:
    """Return the numbers of the runs, the most accurate first; those without an evaluation come last."""
    best = [best_result(record) for record in records]
    return sorted(range(len(records)), key=lambda i: (-(r.accuracy if (r := best[i]) else -1.0), i))
