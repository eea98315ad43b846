"""The points in which runs depart from the papers or the code that their recipes name, as a table. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from resnext_train.config import RunFacts, deviations, reference_of
from resnext_train.report.run_record import RunRecord
from resnext_train.report.tables.recipe_table import FEW, names_text
from resnext_train.report.tables.table import Column, Table

_Point = tuple[str, str, str]
"""What is done there, in which point, and by which source."""

Found = Mapping[_Point, Mapping[str, Any]]
"""The deviations of runs that have the same."""


def deviation_table(runs: Sequence[RunRecord]) -> Table | None:
    """Return a table of all deviations of `runs`: a row for each point, a column for runs that have the same.

    Of many different runs there is a row for each value of a point, with the runs that have it. Return None where no
    run names a paper or code to be compared with.
    """
    named = [run for run in runs if run.recipe and run.recipe.train.reference]
    if not named:
        return None
    groups: dict[str, tuple[Found, list[str]]] = {}
    for run in named:
        found = {_point(entry): entry for entry in _deviations(run)}
        groups.setdefault(repr(found), (found, []))[1].append(run.name)
    points = list(dict.fromkeys(point for found, _ in groups.values() for point in found))
    rest = (Column("There"), Column("Source"), Column("Effect"))
    if len(groups) <= FEW:
        heads = ["Here"] if len(groups) == 1 else [names_text(names) for _, names in groups.values()]
        columns: tuple[Column, ...] = (Column("Point"), *map(Column, heads), *rest)
        rows = [row for point in points for row in [_row(point, [found for found, _ in groups.values()])]]
    else:
        columns = (Column("Point"), Column("Here"), *rest, Column("Runs"))
        rows = [row for point in points for row in _rows_of_values(point, list(groups.values()))]
    return Table("deviations", "Deviations", _caption(named, len(groups)), columns, tuple(rows))


def _row(point: _Point, found: Sequence[Found]) -> tuple[str, ...]:
    """Return the row of a point with what each of `found` does there."""
    one = next(entries[point] for entries in found if point in entries)
    here = (_text(entries.get(point, {}), "ours") for entries in found)
    return (_text(one, "label"), *here, *(_text(one, key) for key in ("theirs", "source", "effect")))


def _rows_of_values(point: _Point, groups: Sequence[tuple[Found, list[str]]]) -> list[tuple[str, ...]]:
    """Return a row for each of the things that runs do in a point, with the runs."""
    having: dict[str, tuple[Found, list[str]]] = {}
    for found, names in groups:
        if point in found:
            having.setdefault(_text(found[point], "ours"), (found, []))[1].extend(names)
    return [(*_row(point, [found]), names_text(names)) for found, names in having.values()]


def _deviations(run: RunRecord) -> list[Mapping[str, Any]]:
    """Return the deviations that a run has logged, or else those of its recipe."""
    logged = run.start.get("deviations")
    if isinstance(logged, list):
        return [entry for entry in logged if isinstance(entry, Mapping)]
    assert run.recipe is not None
    return [deviation.to_dict() for deviation in deviations(run.recipe, RunFacts())]


def _point(entry: Mapping[str, Any]) -> _Point:
    return _text(entry, "theirs"), _text(entry, "point"), _text(entry, "source")


def _text(entry: Mapping[str, Any], key: str) -> str:
    return str(entry.get(key, ""))


def _caption(runs: Sequence[RunRecord], groups: int) -> str:
    references = [reference for run in runs if run.recipe and (reference := reference_of(run.recipe))]
    titles = list(dict.fromkeys(reference.title for reference in references))
    several = "; empty where a run has no such deviation" if 1 < groups <= FEW else ""
    return f"Points in which training departs from {' and '.join(titles)}, compared point by point{several}."
