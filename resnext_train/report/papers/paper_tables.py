"""A table of a paper beside a user's own runs. Imports no torch."""

from __future__ import annotations

import re
import statistics
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from resnext_train.errors import InputError
from resnext_train.report.papers.paper_commands import commands_for
from resnext_train.report.papers.paper_runs import CountedRuns, count_runs, evaluations_under, result_under
from resnext_train.report.papers.paper_table_data import TABLES, TOP1, PaperTable, Protocol, Row
from resnext_train.report.run_record import RunRecord
from resnext_train.report.run_values import EvalResult, evaluation_of
from resnext_train.report.tables.number_texts import difference, spread
from resnext_train.report.tables.table import Column, Table

NOTHING = "–"


def paper_table(name: str) -> PaperTable:
    """Return the table called `name`, as for `--table`.

    Raises:
        InputError: there is none; the message lists all.
    """
    if name in TABLES:
        return TABLES[name]
    known = "; ".join(f"{key} ({table.title})" for key, table in TABLES.items())
    wrong = f"there is no table {name[:60]!r}; choose" if name else "name a table,"
    raise InputError(f"--table: {wrong} one of {known}")


def recipes_of(name: str) -> list[str]:
    """Return the recipes of a table's networks, as for `--config`, each once, in the table's order.

    Raises:
        InputError: see `paper_table`.
    """
    return list(dict.fromkeys(row.recipe for row in paper_table(name).rows if row.recipe))


@dataclass(frozen=True)
class FilledRow:
    """A row of a paper's table with what the runs reached."""

    row: Row
    errors: tuple[tuple[float, ...], ...]
    """For each measure the errors of all runs in per cent; empty while there is none."""
    commands: tuple[str, ...]
    """What is to be run for the rest, in this order."""
    left_out: tuple[str, ...] = ()
    """Evaluations of other weights than the final ones, with that reason."""

    def cells(self) -> list[str]:
        """Return for each measure the published error, that of the runs and their difference; and the runs."""
        texts: list[str] = []
        for published, errors in zip(self.row.published, self.errors, strict=True):
            texts += [published, mean_text(errors), difference_text(errors, published)]
        done = f"{len(self.errors[0])} of {self.row.runs}" if self.row.recipe else ""
        return [*texts, done]


@dataclass(frozen=True)
class FilledTable:
    """A paper's table with what the runs reached."""

    name: str
    table: PaperTable
    rows: tuple[FilledRow, ...]
    left_out: tuple[str, ...]
    """Runs of the table's networks, and evaluations, that do not count: name and reason, a line each."""
    others: int
    """Runs of other networks."""
    runs: tuple[RunRecord, ...]
    """Those that count."""

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns but for the commands."""
        numbers = [f"{measure} {of}" for measure in self.table.measures for of in ("published", "runs", "difference")]
        return (*map(Column, self.table.labels), *(Column(name, numeric=True) for name in [*numbers, "Runs"]))

    @property
    def lines(self) -> list[tuple[str, ...]]:
        """The texts of each row, for `columns`."""
        return [(*filled.row.labels, *filled.cells()) for filled in self.rows]

    @property
    def commands(self) -> list[str]:
        """What is to be run to fill the table, each command once."""
        return list(dict.fromkeys(command for filled in self.rows for command in filled.commands))

    @property
    def notes(self) -> list[str]:
        """What is to be known of the numbers, a sentence each."""
        runs = (
            "Runs: mean and standard deviation of the errors after the last epoch, as the papers report them, not of "
            "the best one; a run counts that is done and of the recipe, of each seed once."
        )
        others = (
            [f"Runs of other networks, or with a recipe that cannot be read: {self.others}."] if self.others else []
        )
        published = f"Published: {self.table.source}. {self.table.caption} {self.table.note}".rstrip()
        return [published, runs, *others]

    @property
    def caption(self) -> str:
        """What the numbers are, and how the runs were chosen."""
        return " ".join(self.notes)

    def without_commands(self) -> Table:
        """Return the table without what is to be run, for where that stands below it."""
        return Table(f"paper-table-{self.name}", self.table.title, self.caption, self.columns, tuple(self.lines))

    def as_table(self) -> Table:
        """Return the table with its commands as the last column, and the runs that are left out in the caption."""
        table = self.without_commands()
        left_out = f" Left out: {'; '.join(self.left_out)}." if self.left_out else ""
        return replace(
            table,
            caption=table.caption + left_out,
            columns=(*table.columns, Column("To fill it")),
            rows=tuple(
                (*line, " && ".join(filled.commands)) for line, filled in zip(table.rows, self.rows, strict=True)
            ),
        )


def fill_table(name: str, records: Sequence[RunRecord]) -> FilledTable:
    """Return the table called `name` with what the runs of `records` reached.

    Raises:
        InputError: see `paper_table`.
    """
    table = paper_table(name)
    counted = count_runs(records, recipes_of(name))
    unfinished = {run.record.folder for run in counted.left_out if run.is_unfinished}
    taken = {record.folder.resolve() for record in records if record.folder not in unfinished}
    rows = tuple(_filled(row, table.measures, counted, taken) for row in table.rows)
    left_out = [f"{run.record.name} ({run.why})" for run in counted.left_out]
    left_out += [text for filled in rows for text in filled.left_out]
    runs = tuple(run for of_recipe in counted.of_recipe.values() for run in of_recipe)
    return FilledTable(name, table, rows, tuple(left_out), counted.others, runs)


def _filled(row: Row, measures: Sequence[str], counted: CountedRuns, taken: Collection[Path]) -> FilledRow:
    if row.recipe is None:
        return FilledRow(row, tuple(() for _ in measures), ())
    runs = counted.of_recipe[row.recipe]
    results = [(run, result_under(run, row.recipe, row.protocol)) for run in runs]
    found = [result for _, result in results if result is not None]
    unevaluated = [run for run, result in results if result is None]
    errors = tuple(tuple(_error(result, measure) for result in found) for measure in measures)
    left_out = [text for run in unevaluated for text in _of_other_weights(run, row.recipe, row.protocol)]
    return FilledRow(row, errors, commands_for(row, runs, unevaluated, taken), tuple(left_out))


def _of_other_weights(run: RunRecord, recipe: str, protocol: Protocol) -> list[str]:
    last = evaluation_of(run.last)
    return [
        f"{run.name}/{folder} (weights {f'of epoch {result.epoch}' if result.epoch else 'of no known epoch'}, not of "
        f"the last{f', {last.epoch}' if last else ''})"
        for folder, result in evaluations_under(run, recipe, protocol).items()
    ]


def _error(result: EvalResult, measure: str) -> float:
    """Return an error in per cent, of a result that counted both measures."""
    correct = result.top1_correct if measure == TOP1 else result.top5_correct
    assert correct is not None
    return 100 * (result.count - correct) / result.count


def mean_text(errors: Sequence[float]) -> str:
    """Return the mean of errors in per cent and, of several, their sample standard deviation.

    >>> mean_text([3.6, 3.7]), mean_text([22.2]), mean_text([])
    ('3.65 ± 0.07', '22.20', '–')
    """
    if not errors:
        return NOTHING
    return spread(statistics.fmean(errors), statistics.stdev(errors) if len(errors) > 1 else None)


def difference_text(errors: Sequence[float], published: str) -> str:
    """Return how far the mean of errors is above the published one, of several runs above their published mean.

    >>> difference_text([6.7, 6.8], "6.43 (6.61±0.16)"), difference_text([22.25], "22.2"), difference_text([], "22.2")
    ('+0.14', '+0.05', '–')
    """
    number = re.search(r"\(([\d.]+)|^[\d.]+$", published)
    if not errors or number is None:
        return NOTHING
    return difference(statistics.fmean(errors) - float(number[1] or number[0]))
