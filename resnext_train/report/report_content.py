"""What a report shows, before it is text, CSV or HTML. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

from resnext_train import __version__
from resnext_train.config import natural_key
from resnext_train.report.run_record import RunRecord, read_runs
from resnext_train.report.run_values import RunValues
from resnext_train.report.tables.comparison_table import comparison_table
from resnext_train.report.tables.deviation_table import deviation_table
from resnext_train.report.tables.recipe_table import differences_table
from resnext_train.report.tables.run_tables import problems_table, published_table, results_table, runs_table
from resnext_train.report.tables.seed_groups import SeedGroup, seed_groups, seeds_table
from resnext_train.report.tables.table import Table


@dataclass(frozen=True)
class Report:
    """The runs of a report and its tables, in the order in which they are shown."""

    title: str
    records: tuple[RunRecord, ...]
    tables: tuple[Table, ...]
    made_at: datetime
    """In UTC."""
    version: str
    """Of resnext-train, which made it."""
    runs: tuple[RunValues, ...] = field(default=(), repr=False)
    """The numbers of the records, in their order."""
    groups: tuple[SeedGroup, ...] = field(default=(), repr=False)
    """The runs by recipe."""
    pictures: bool = True
    """Whether images of the data are shown."""


def build_report(paths: Iterable[str | Path], pictures: bool = True) -> Report:
    """Read the runs that `paths` are or hold, and make the tables of them; without `pictures`, no image is shown.

    Runs are in the order of their paths; those of one folder by name, seed2 before seed10.

    Raises:
        InputError: a path is no folder, or holds no run.
    """
    named = list(paths)
    records = tuple(read_runs(named))
    if len(named) == 1:
        records = tuple(sorted(records, key=lambda record: natural_key(record.name)))
    runs = tuple(map(RunValues, records))
    groups = tuple(seed_groups(runs))
    title = f"Run {records[0].name}" if len(records) == 1 else f"{len(records)} runs"
    made_at = datetime.now(timezone.utc)
    return Report(title, records, tuple(_tables(records, runs, groups)), made_at, __version__, runs, groups, pictures)


def _tables(records: Sequence[RunRecord], runs: Sequence[RunValues], groups: Sequence[SeedGroup]) -> list[Table]:
    """Return the tables that have something to show; a further one is a line here."""
    tables = [
        results_table(runs),
        seeds_table(groups),
        comparison_table(runs),
        published_table(runs),
        deviation_table(records),
        runs_table(runs),
        differences_table(runs),
        problems_table(runs),
    ]
    return [table for table in tables if table is not None]
