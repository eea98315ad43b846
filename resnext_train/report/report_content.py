"""What a report shows, before it is text, CSV or HTML. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from resnext_train import __version__
from resnext_train.report.run_record import RunRecord, read_runs
from resnext_train.report.table import Table


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


def build_report(paths: Iterable[str | Path]) -> Report:
    """Read the runs that `paths` are or hold, and make the tables of them.

    Raises:
        InputError: a path is no folder, or holds no run.
    """
    records = tuple(read_runs(paths))
    return Report(_title(records), records, tuple(_tables(records)), datetime.now(timezone.utc), __version__)


def _title(records: tuple[RunRecord, ...]) -> str:
    return f"Run {records[0].name}" if len(records) == 1 else f"{len(records)} runs"


def _tables(records: tuple[RunRecord, ...]) -> list[Table]:
    """Return the tables; a further one is a line here."""
    del records
    return []
