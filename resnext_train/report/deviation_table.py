"""The points in which runs depart from the papers or the code that their recipes name, as a table. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from resnext_train.config import RunFacts, deviations, reference_of
from resnext_train.report.run_record import RunRecord
from resnext_train.report.table import Column, Table

_Point = tuple[str, str, str]
"""What is done there, in which point, and by which source."""


def deviation_table(runs: Sequence[RunRecord]) -> Table | None:
    """Return a table of all deviations of `runs`: a row for each point, a column for each run.

    Return None where no run names a paper or code to be compared with.
    """
    named = [run for run in runs if run.recipe and run.recipe.train.reference]
    if not named:
        return None
    found = [{_point(entry): entry for entry in _deviations(run)} for run in named]
    points = list(dict.fromkeys(point for of_run in found for point in of_run))
    here = [Column("here" if len(named) == 1 else run.name) for run in named]
    rows = [
        (_text(_first(found, point), "label"), *(_text(of_run.get(point, {}), "ours") for of_run in found), *rest)
        for point in points
        for rest in [[_text(_first(found, point), key) for key in ("theirs", "source", "effect")]]
    ]
    columns = (Column("point"), *here, Column("there"), Column("source"), Column("effect"))
    return Table("deviations", "Deviations", _caption(named), columns, tuple(rows))


def _deviations(run: RunRecord) -> list[Mapping[str, Any]]:
    """Return the deviations that a run has logged, or else those of its recipe."""
    logged = run.start.get("deviations")
    if isinstance(logged, list):
        return [entry for entry in logged if isinstance(entry, Mapping)]
    assert run.recipe is not None
    return [deviation.to_dict() for deviation in deviations(run.recipe, RunFacts())]


def _point(entry: Mapping[str, Any]) -> _Point:
    return _text(entry, "theirs"), _text(entry, "point"), _text(entry, "source")


def _first(found: Sequence[Mapping[_Point, Mapping[str, Any]]], point: _Point) -> Mapping[str, Any]:
    return next(of_run[point] for of_run in found if point in of_run)


def _text(entry: Mapping[str, Any], key: str) -> str:
    return str(entry.get(key, ""))


def _caption(runs: Sequence[RunRecord]) -> str:
    references = [reference for run in runs if run.recipe and (reference := reference_of(run.recipe))]
    titles = list(dict.fromkeys(reference.title for reference in references))
    several = "; empty where a run has no such deviation" if len(runs) > 1 else ""
    return f"Points in which training departs from {' and '.join(titles)}, compared point by point{several}."
