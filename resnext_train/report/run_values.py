"""The numbers of a run that reports show, whatever its files lack. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from resnext_train.config import Entry, Recipe, defining_values, find_entry
from resnext_train.evaluation.wilson import wilson_interval
from resnext_train.report.run_record import RunRecord
from resnext_train.report.tables.published import Published, published_by


@dataclass(frozen=True)
class EvalResult:
    """What an evaluation of a run counted."""

    epoch: int | None
    count: int
    """Images, at least 1."""
    top1_correct: int
    top5_correct: int | None
    weights: str = ""
    """model or ema (the average of the weights); empty where the run keeps no average."""

    @property
    def accuracy(self) -> float:
        """In per cent."""
        return 100 * self.top1_correct / self.count

    @property
    def error(self) -> float:
        """In per cent."""
        return 100 * (self.count - self.top1_correct) / self.count

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the accuracy in per cent."""
        return wilson_interval(self.top1_correct, self.count)


class RunValues:
    """The numbers of a run. What its files do not hold, or hold in another form, is None.

    Evaluations of a run that is done are those of its summary, as the command printed them; of another one those of
    its log, which is ahead of the summary.
    """

    def __init__(self, record: RunRecord) -> None:
        self.record = record
        self.name, self.status = record.name, record.status

    @property
    def is_done(self) -> bool:
        """Whether the run has come to its end."""
        return self.status == "done"

    @cached_property
    def recipe(self) -> Recipe | None:
        """The recipe; None where it cannot be read, or this version does not understand it."""
        return self.record.recipe if self.record.values else None

    @cached_property
    def entry(self) -> Entry | None:
        """The shipped recipe that the run's is; None: an own one, or too little is known."""
        known = self.recipe is not None and self.classes is not None
        return find_entry(self.recipe, self.classes) if known else None  # type: ignore[arg-type]

    @cached_property
    def published(self) -> Published | None:
        """What was published for the shipped recipe."""
        return published_by(self.entry)

    @cached_property
    def identity(self) -> tuple[str, ...]:
        """A key that runs share which differ only in their seed, and in where and how they were computed.

        The data set is known by its numbers of classes and of images alone: it may be at another place.
        """
        values = self.record.values if self.recipe is None else self.recipe.to_dict()
        evaluated = self.whole("val_images") or (self.best and self.best.count)
        data = (self.classes, self.whole("train_images"), evaluated)
        return tuple(map(repr, (*sorted(defining_values(values).items()), *data)))

    def fact(self, key: str) -> Any:
        """Return what the summary says of the run's machine, network or data; without one, what its start says."""
        value = self.record.summary.get(key)
        return self.record.start.get(key) if value is None else value

    def whole(self, key: str) -> int | None:
        """Return the fact `key` if it is a whole number."""
        return whole(self.fact(key))

    def text(self, key: str) -> str | None:
        """Return the fact `key` if it is a text."""
        return text(self.fact(key))

    @property
    def network(self) -> Mapping[str, Any]:
        """Title, parameters, multiply_adds and size of the network; empty in older runs."""
        return mapping(self.fact("network"))

    @property
    def network_title(self) -> str | None:
        """The network's title, or its name in the recipe."""
        return text(self.network.get("title")) or text(mapping(self.record.values.get("model")).get("arch"))

    @property
    def device(self) -> str | None:
        """The name of the GPU or CPU, or in older runs its kind."""
        return self.text("hardware") or self.text("device")

    @property
    def classes(self) -> int | None:
        """Classes of the network: as the run found them, or as its recipe states them."""
        sections = (("data", "classes"), ("model", "num_classes"))
        stated = (whole(mapping(self.record.values.get(section)).get(key)) for section, key in sections)
        return self.whole("classes") or next((n for n in stated if n), None)

    @property
    def seed(self) -> int | None:
        return self.record.seed

    @property
    def epochs_finished(self) -> int:
        """Epochs with a line in the log, or finished as the summary has it."""
        logged = (whole(event.get("epoch")) for event in reversed(self.record.epochs))
        return next((n for n in logged if n is not None), whole(self.record.summary.get("epochs")) or 0)

    @property
    def epochs_planned(self) -> int | None:
        """Epochs that the run was to take; the last of them may be cut short."""
        total, each = whole(self.record.start.get("total_steps")), whole(self.record.start.get("steps_per_epoch"))
        if total and each:
            return -(-total // each)
        planned = number(mapping(self.record.values.get("train")).get("epochs"))
        return None if planned is None else math.ceil(planned)

    @property
    def seconds(self) -> float | None:
        """Seconds of training with its evaluations: of the summary, else of the epochs in the log."""
        stated = number(self.record.summary.get("seconds"))
        logged = [s for event in self.record.epochs if (s := number(event.get("seconds"))) is not None]
        return sum(logged) if logged and (stated is None or not self.is_done) else stated

    @property
    def images_per_s(self) -> float | None:
        """Images trained on in a second, evaluations included."""
        return number(self.record.summary.get("images_per_s"))

    @cached_property
    def best(self) -> EvalResult | None:
        """The evaluation with the most correct images, of the better weights, the first of several."""
        stated = evaluation_of(self.record.summary.get("best"))
        logged = [result for results in self._logged for result in results]
        found = max(logged, key=lambda result: result.top1_correct, default=None)
        return stated or found if self.is_done else found or stated

    @cached_property
    def final(self) -> EvalResult | None:
        """The last evaluation: of the average of the weights where the run keeps one, else of the network's own."""
        return self.last_results[-1] if self.last_results else None

    @cached_property
    def last_results(self) -> tuple[EvalResult, ...]:
        """The last evaluation: of the network's own weights, and of their average where the run keeps one."""
        stated = _both(self.record.summary.get("last"))
        found = self._logged[-1] if self._logged else ()
        return stated or found if self.is_done else found or stated

    @property
    def errors(self) -> list[float]:
        """The errors of the network's own weights in per cent, in the order of the evaluations in the log."""
        return [results[0].error for results in self._logged]

    @cached_property
    def _logged(self) -> list[tuple[EvalResult, ...]]:
        """The evaluations in the log."""
        keys = ("count", "top1_correct", "top5_correct")
        found = (_both({**event, **{key: event.get(f"val_{key}") for key in keys}}) for event in self.record.epochs)
        return [results for results in found if results]


def _both(values: object) -> tuple[EvalResult, ...]:
    """Return an evaluation's results for the network's own weights, and for their average where there is one."""
    own, average = evaluation_of(values), mapping(mapping(values).get("ema"))
    if own is None or not average:
        return () if own is None else (own,)
    of_average = evaluation_of({**average, "epoch": own.epoch, "weights": "ema"})
    return (replace(own, weights="model"), *filter(None, [of_average]))


def evaluation_of(values: object) -> EvalResult | None:
    """Return an evaluation from its values in summary.json; None where they are none."""
    held = mapping(values)
    count, top1, top5 = (whole(held.get(key)) for key in ("count", "top1_correct", "top5_correct"))
    if not count or top1 is None or not 0 <= top1 <= count:
        return None
    return EvalResult(whole(held.get("epoch")), count, top1, top5, text(held.get("weights")) or "")


def mapping(value: object) -> Mapping[str, Any]:
    """Return a mapping as it is, and an empty one for anything else."""
    return value if isinstance(value, Mapping) else {}


def whole(value: object) -> int | None:
    """Return a whole number of up to 64 bits as it is, and None for anything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 63 else None


def number(value: object) -> float | None:
    """Return a finite number as a float, and None for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if abs(value) < 1e300 else None  # also of NaN, and of whole numbers that no float holds


def text(value: object) -> str | None:
    """Return a text that is not empty, and None for anything else."""
    return value if isinstance(value, str) and value else None
