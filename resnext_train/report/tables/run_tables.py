"""The tables with a line for each run: results, and what the runs were. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from resnext_train.report.run_values import EvalResult, RunValues
from resnext_train.report.tables import number_texts as texts
from resnext_train.report.tables.table import Column, Table

Cell = Callable[[RunValues], str]

_OPTIONAL = {"Status", "Best: correct", "Best: epoch", "Parameters", "Multiply-adds", "Host", "Device", "Processes"}
"""Columns that text leaves out where there is no room."""


def results_table(runs: Sequence[RunValues]) -> Table:
    """Return accuracies with their counts and intervals, beside what was published."""
    caption = (
        "Accuracy is top-1, in per cent of the validation images. The final one is that of the last evaluation; of a "
        "run that has not finished, of the last so far. Intervals are its 95 % intervals by Wilson's method: they hold "
        "the chance of the images, not that of the seed. The best is that of the evaluation with the most correct "
        "images among all of a run's: it was chosen on the images on which it is counted, and so is optimistic."
    )
    averaged = any(run.best and run.best.weights for run in runs)
    if averaged:
        caption += " Weights: model are the network's own, ema their average over the run; final is the average's."
    if any(run.published and run.published.error is not None for run in runs):
        caption += (
            " The published error is that of the shipped recipe which the run's is, but for its seed and for where "
            "and how it is computed; differences are error of the run \N{MINUS SIGN} published error, in percentage "
            "points, of finished runs"
        )
        caption += "; there is none where ten crops were published." if _any_by_other_views(runs) else "."
    columns: dict[str, tuple[Cell, bool]] = {
        "Final accuracy": (lambda run: _accuracy(run.final), True),
        "95 % interval": (lambda run: _interval(run.final), True),
        "Correct": (lambda run: _correct(run.final), True),
        "Final weights": (lambda run: _weights(run.final) if averaged else "", False),
        "Best accuracy": (lambda run: _accuracy(run.best), True),
        "Best: correct": (lambda run: _correct(run.best), True),
        "Best: epoch": (lambda run: "" if run.best is None or run.best.epoch is None else str(run.best.epoch), True),
        "Best: weights": (lambda run: _weights(run.best) if averaged else "", False),
        "Published error": (lambda run: texts.percent(run.published.error if run.published else None), True),
        "Final error \N{MINUS SIGN} published": (lambda run: texts.difference(above_published(run, run.final)), True),
        "Best error \N{MINUS SIGN} published": (lambda run: texts.difference(above_published(run, run.best)), True),
        "Epochs": (_epochs, True),
        "Status": (lambda run: run.status, False),
    }
    return _table("results", "Results", caption, columns, runs)


def runs_table(runs: Sequence[RunValues]) -> Table:
    """Return networks, costs and machines."""
    caption = (
        "Parameters are learnable ones; multiply-adds are those of one image in evaluation. Time is that of training "
        "and its evaluations, and so are images/s. The recipe is the shipped one that the run's is, if it is one."
    )
    columns: dict[str, tuple[Cell, bool]] = {
        "Recipe": (lambda run: run.entry.name.removesuffix(".yaml") if run.entry else "", False),
        "Network": (lambda run: run.network_title or "", False),
        "Parameters": (lambda run: texts.whole_number(whole_of(run, "parameters")), True),
        "Multiply-adds": (lambda run: texts.billions(whole_of(run, "multiply_adds")), True),
        "Seed": (lambda run: "" if run.seed is None else str(run.seed), True),
        "Time": (lambda run: texts.duration(run.seconds), True),
        "Images/s": (lambda run: "" if run.images_per_s is None else f"{run.images_per_s:,.0f}", True),
        "Host": (lambda run: run.text("host") or "", False),
        "Device": (lambda run: run.device or "", False),
        "Processes": (lambda run: texts.whole_number(run.whole("world_size")), True),
        "Precision": (lambda run: run.text("precision") or "", False),
    }
    return _table("runs", "Runs", caption, columns, runs)


def published_table(runs: Sequence[RunValues]) -> Table | None:
    """Return what was published for the shipped recipes among those of the runs; None: there are none."""
    found = {run.published.recipe: run.published for run in runs if run.published}
    rows = tuple((name, published.reproduces, published.result) for name, published in sorted(found.items()))
    caption = "What the source of a shipped recipe states, and how it was found; or what this project expects of it."
    columns = (Column("Recipe"), Column("Reproduces"), Column("Result"))
    return Table("published", "Published results", caption, columns, rows) if rows else None


def problems_table(runs: Sequence[RunValues]) -> Table | None:
    """Return what could not be read of the runs; None: all was."""
    rows = tuple((run.name, problem) for run in runs for problem in _problems(run))
    caption = "Files that are not there, or damaged. What they would say is left out."
    return Table("problems", "Not read", caption, (Column("Run"), Column("What")), rows) if rows else None


def _problems(run: RunValues) -> list[str]:
    unknown = run.record.values and run.recipe is None
    return [*run.record.problems, *(["its recipe is not one of this version"] if unknown else [])]


def above_published(run: RunValues, result: EvalResult | None) -> float | None:
    """Return by how many percentage points a finished run's error is above the published one, if they compare."""
    published = run.published
    if published is None or published.error is None or published.by_other_views or result is None or not run.is_done:
        return None
    return result.error - published.error


def whole_of(run: RunValues, key: str) -> int | None:
    """Return a whole number that is known of the run's network."""
    value = run.network.get(key)
    return value if isinstance(value, int) else None


def _any_by_other_views(runs: Sequence[RunValues]) -> bool:
    return any(run.published and run.published.by_other_views for run in runs)


def _epochs(run: RunValues) -> str:
    planned = run.epochs_planned
    return f"{run.epochs_finished} of {planned}" if planned is not None else str(run.epochs_finished)


def _accuracy(result: EvalResult | None) -> str:
    return texts.percent(result.accuracy if result else None)


def _interval(result: EvalResult | None) -> str:
    return texts.interval(result.interval if result else None)


def _correct(result: EvalResult | None) -> str:
    return f"{result.top1_correct:,} of {result.count:,}" if result else ""


def _weights(result: EvalResult | None) -> str:
    return (result.weights or "model") if result else ""


def _table(
    key: str, title: str, caption: str, columns: dict[str, tuple[Cell, bool]], runs: Sequence[RunValues]
) -> Table:
    rows = tuple((run.name, *(cell(run) for cell, _ in columns.values())) for run in runs)
    heads = (Column("Run"), *(Column(name, numeric, name in _OPTIONAL) for name, (_, numeric) in columns.items()))
    return without_empty_columns(Table(key, title, caption, heads, rows))


def without_empty_columns(table: Table) -> Table:
    """Return a table without the columns of which nothing is known in any row."""
    kept = [i for i in range(len(table.columns)) if any(row[i] for row in table.rows)]
    rows = tuple(tuple(row[i] for i in kept) for row in table.rows)
    return replace(table, columns=tuple(table.columns[i] for i in kept), rows=rows)
