"""Runs as a list for terminals: state, epoch, best accuracy, age. Imports no torch."""

from __future__ import annotations

import time
from collections.abc import Sequence

from resnext_train.evaluation.text_table import table_width, text_table
from resnext_train.report.run_record import read_runs
from resnext_train.report.run_values import RunValues

_HEAD = ("run", "state", "epoch", "best accuracy", "at", "logged")


def run_list(folders: Sequence[str], now: float | None = None) -> list[str]:
    """Return a head and a line for each run in `folders`, by name.

    Raises:
        InputError: a folder is not there, or holds no run.
    """
    moment = time.time() if now is None else now
    rows = [_row(RunValues(record), moment) for record in read_runs(folders)]
    return text_table(_HEAD, rows, "<<>>>>", table_width(_HEAD, rows))


def _row(run: RunValues, now: float) -> tuple[str, ...]:
    best, planned, logged = run.best, run.epochs_planned, run.record.logged_at
    return (
        run.name,
        run.status,
        str(run.epochs_finished) if planned is None else f"{run.epochs_finished}/{planned}",
        "–" if best is None else f"{best.accuracy:.2f} %",
        "–" if best is None or best.epoch is None else f"epoch {best.epoch}",
        "–" if logged is None else f"{age(now - logged)} ago",
    )


def age(seconds: float) -> str:
    """Return a time in its largest unit: 42 s, 12 min, 5 h, 3 d."""
    for length, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(0, seconds):.0f} s"
