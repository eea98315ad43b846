"""Which runs a table of a paper counts, and what they reached under its protocols. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from resnext_train.config import Entry, EvalSection, defining_values, load_recipe, read_entry
from resnext_train.regular_file import read_regular
from resnext_train.report.papers.paper_table_data import TRAINING, Protocol
from resnext_train.report.run_record import EVALUATION, RunRecord
from resnext_train.report.run_values import EvalResult, RunValues, evaluation_of, mapping, whole

_VAL_IMAGES = {1000: 50_000, 5000: 50_000, 100: 10_000, 10: 10_000}
"""Validation images of ImageNet-1K, ImageNet-5K (which takes ImageNet-1K's), CIFAR-100 and CIFAR-10, by classes."""

_MOST_CHANGES = 4
"""Changed values that are shown of a run."""

_MAX_BYTES = 1 << 26
"""Limit of a result.json, which lists classes and confusions."""


@dataclass(frozen=True)
class LeftOut:
    """A run of one of a table's networks that does not count, and why."""

    record: RunRecord
    why: str
    is_unfinished: bool
    """Whether it would count if it were done: the command that began it continues it."""


@dataclass(frozen=True)
class CountedRuns:
    """The runs that a table counts."""

    of_recipe: Mapping[str, tuple[RunRecord, ...]]
    """By recipe, those of each seed once, by seed."""
    left_out: tuple[LeftOut, ...]
    others: int
    """Runs of other networks than the table's, or with a recipe that cannot be read."""


def count_runs(records: Sequence[RunRecord], recipes: Sequence[str]) -> CountedRuns:
    """Sort `records` by the recipe that each is a finished run of, and say why others are none.

    A run counts that is done, is of the shipped recipe but for values that say where and how it is computed and its
    seed (the rule of `find_entry`), and was evaluated on all of the data set's images.
    """
    entries = [(entry, defining_values(entry.recipe.to_dict())) for entry in map(read_entry, recipes)]
    of_recipe: dict[str, list[RunRecord]] = {name: [] for name in recipes}
    left_out: list[LeftOut] = []
    others = 0
    for record in records:
        found = _nearest(record, entries)
        if found is None:
            others += 1
            continue
        entry, changes = found
        counted = of_recipe[entry.name]
        same_seed = next((other.name for other in counted if other.seed == record.seed), None)
        if why := _why_other(record, entry, changes):
            left_out.append(LeftOut(record, why, is_unfinished=False))
        elif record.status != "done":
            left_out.append(LeftOut(record, f"{record.status} at step {record.step:,}", is_unfinished=True))
        elif why := _why_unusable(record, entry):
            left_out.append(LeftOut(record, why, is_unfinished=False))
        elif same_seed is not None:
            left_out.append(LeftOut(record, f"its seed {record.seed} is that of {same_seed}", is_unfinished=False))
        else:
            counted.append(record)
    by_seed = {name: tuple(sorted(runs, key=lambda r: (r.seed is None, r.seed))) for name, runs in of_recipe.items()}
    return CountedRuns(by_seed, tuple(left_out), others)


Changes = dict[str, tuple[Any, Any]]
"""By dotted key, the recipe's value and the run's; None: the key is absent or null."""


def _nearest(record: RunRecord, entries: Iterable[tuple[Entry, Mapping[str, Any]]]) -> tuple[Entry, Changes] | None:
    """Return the recipe with the run's network from which the run differs least, and in what; None: there is none."""
    run = RunValues(record)
    if run.recipe is None:
        return None
    own = defining_values(run.recipe.to_dict())
    found = [(entry, _changes(values, own)) for entry, values in entries]
    alike = [(entry, changes) for entry, changes in found if not _is_other_network(changes)]
    return min(alike, key=lambda pair: (pair[0].classes != run.classes, len(pair[1])), default=None)


def _changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> Changes:
    keys = [*before, *(key for key in after if key not in before)]
    return {key: (before.get(key), after.get(key)) for key in keys if before.get(key) != after.get(key)}


def _is_other_network(changes: Changes) -> bool:
    return any(key.startswith("model.") and key != "model.weights" for key in changes)


def _why_other(record: RunRecord, entry: Entry, changes: Changes) -> str:
    """Return in what a run of this network is of another recipe or other classes, or ""."""
    if changes:
        shown = [f"{key} {_shown(before)} → {_shown(after)}" for key, (before, after) in changes.items()]
        more = [f"{len(shown) - _MOST_CHANGES} more"] if len(shown) > _MOST_CHANGES else []
        return ", ".join([*shown[:_MOST_CHANGES], *more])
    classes = RunValues(record).classes  # None in runs of earlier versions
    return f"{classes:,} classes, not {entry.classes:,}" if classes not in (None, entry.classes) else ""


def _why_unusable(record: RunRecord, entry: Entry) -> str:
    """Return why the last evaluation of a finished run cannot be compared with a paper's, or ""."""
    last = _complete(record.last)
    if last is None or record.last is None:
        return "its summary.json has no evaluation"
    images = last.count + (whole(record.last.get("unreadable")) or 0)
    wanted = _VAL_IMAGES.get(entry.classes or 0)
    return f"evaluated on {images:,} images, not {wanted:,}" if wanted and images != wanted else ""


def _shown(value: Any) -> str:
    if value is None:
        return "unset"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_shown, value))}]"
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value)


def result_under(record: RunRecord, recipe: str, protocol: Protocol) -> EvalResult | None:
    """Return what the final weights of a counted run reached under a protocol; None: they were not evaluated so.

    Training's own evaluation is in summary.json, others are `evaluations_under` the protocol.
    """
    last = _complete(record.last)
    if protocol == TRAINING or last is None:
        return last
    found = evaluations_under(record, recipe, protocol).values()
    return next((result for result in found if result.epoch == last.epoch), None)


def evaluations_under(record: RunRecord, recipe: str, protocol: Protocol) -> dict[str, EvalResult]:
    """Return, by the folder in the run's, the results of `resnext eval --out` under a protocol, of any epoch's weights.

    They are of the same views and among as many classes.
    """
    wanted = load_recipe(recipe, protocol.overrides).eval
    values = {file.parent.name: _read(file) for file in sorted(record.folder.glob(f"{EVALUATION}*/result.json"))}
    found = {name: _complete(of) for name, of in values.items() if _is_under(of, wanted, protocol.classes)}
    return {name: result for name, result in found.items() if result is not None}


def _complete(values: object) -> EvalResult | None:
    """Return an evaluation that counted both measures; None for any other."""
    result = evaluation_of(values)
    return None if result is None or result.top5_correct is None else result


def _is_under(values: Mapping[str, Any], wanted: EvalSection, classes: int | None) -> bool:
    """Return whether the result of an evaluation is of the views that are `wanted`, among so many classes."""
    try:
        used = EvalSection.model_validate_json(json.dumps(values.get("eval")), strict=True)
    except (ValidationError, ValueError):  # written by an earlier version, or changed
        return False
    known = values.get("classes")
    among = len(known) if used.classes is not None and isinstance(known, list) else None
    plain = used.labels is None and not values.get("recalibrated_bn")
    return plain and used.description == wanted.description and among == classes


def _read(file: Path) -> Mapping[str, Any]:
    try:
        return mapping(json.loads(read_regular(file, _MAX_BYTES)))
    except (OSError, ValueError, RecursionError):  # damaged: the command evaluates again
        return {}
