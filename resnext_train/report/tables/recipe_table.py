"""In which keys the recipes of runs differ. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from resnext_train.config import flattened
from resnext_train.report.run_values import RunValues
from resnext_train.report.tables.table import Column, Table

FEW = 6
"""Up to so many runs have a column each."""

_VALUES = 8
"""Of more runs, a key with more values than this has one line for all of them."""

_NAMES = 6
"""So many runs are named that share a value."""


def differences_table(runs: Sequence[RunValues]) -> Table | None:
    """Return the keys whose values differ, with the values of each run; None where there are none.

    Of many runs there is a line for each value of a key, with the runs that have it, the most frequent last.
    """
    known = {run.name: _values(run) for run in runs if run.record.values}
    differing = {}
    for key in dict.fromkeys(key for values in known.values() for key in values):
        texts = {name: _text(values, key) for name, values in known.items()}
        if len(set(texts.values())) > 1:
            differing[key] = texts
    if not differing:
        return None
    caption = "Keys of the recipes whose values are not the same in all runs; absent: the recipe has no such key."
    if missing := len(runs) - len(known):
        caption += f" Runs without a recipe that can be read are left out: {missing}."
    if len(known) <= FEW:
        columns = (Column("Key"), *map(Column, known))
        rows = tuple((key, *texts.values()) for key, texts in differing.items())
    else:
        columns = (Column("Key"), Column("Value"), Column("n", numeric=True), Column("Runs"))
        rows = tuple(row for key, texts in differing.items() for row in _rows_of_values(key, texts))
    return Table("differences", "Differences of the recipes", caption, columns, rows)


def _values(run: RunValues) -> dict[str, Any]:
    """Return the recipe's values, with those that an older one lacks as they are now."""
    return flattened(run.record.values if run.recipe is None else run.recipe.to_dict())


def _text(values: Mapping[str, Any], key: str) -> str:
    """Return a value as an override would state it."""
    if key not in values:
        return "absent"
    value = values[key]
    return value if value and isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _rows_of_values(key: str, texts: Mapping[str, str]) -> list[tuple[str, ...]]:
    having: dict[str, list[str]] = {}
    for name, value in texts.items():
        having.setdefault(value, []).append(name)
    if len(having) > _VALUES:
        values = list(having)
        return [(key, f"{len(values)} values: {values[0]}, {values[1]}, ..., {values[-1]}", str(len(texts)), "")]
    ordered = sorted(having.items(), key=lambda item: len(item[1]))  # stable: equally frequent ones stay in order
    rows: list[tuple[str, ...]] = [(key, value, str(len(names)), names_text(names)) for value, names in ordered]
    if len(ordered[-1][1]) > _NAMES:
        value, names = ordered[-1]
        rows[-1] = (key, value, str(len(names)), "all others")
    return rows


def names_text(names: Sequence[str]) -> str:
    """Return the names of runs that share something, but not too many."""
    more = len(names) - _NAMES
    return ", ".join(names) if more <= 0 else f"{', '.join(names[:_NAMES])} and {more} more"
