"""Runs as a list for terminals: state, epoch, best accuracy, age. Imports no torch."""

from __future__ import annotations

import time
from collections.abc import Sequence

from resnext_train.report.run_record import RunRecord, read_runs

_HEAD = ("run", "state", "epoch", "best accuracy", "at", "logged")


def run_list(folders: Sequence[str], now: float | None = None) -> list[str]:
    """Return a head and a line for each run in `folders`, by name.

    Raises:
        InputError: a folder is not there, or holds no run.
    """
    moment = time.time() if now is None else now
    rows = [_HEAD, *(_row(record, moment) for record in read_runs(folders))]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    left = (True, True, False, False, False, False)
    return [
        "  ".join(
            cell.ljust(width) if text else cell.rjust(width)
            for cell, width, text in zip(row, widths, left, strict=True)
        ).rstrip()
        for row in rows
    ]


def _row(record: RunRecord, now: float) -> tuple[str, ...]:
    best = record.best
    epochs = record.planned_epochs
    done = record.epochs[-1]["epoch"] if record.epochs else 0
    return (
        record.name,
        record.status,
        f"{done}/{epochs}" if epochs else str(done),
        f"{best['top1']:.2f} %" if best else "–",
        f"epoch {best['epoch']}" if best else "–",
        "–" if record.logged_at is None else f"{age(now - record.logged_at)} ago",
    )


def age(seconds: float) -> str:
    """Return a time in its largest unit: 42 s, 12 min, 5 h, 3 d."""
    for length, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(0, seconds):.0f} s"
