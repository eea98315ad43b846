"""What an evaluation found, in lines of at most 80 columns for people and in plain values. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from resnext_train.data.class_titles import short_titles
from resnext_train.evaluation.calibration import Calibration
from resnext_train.evaluation.class_table import ClassRow, ClassTable
from resnext_train.evaluation.text_table import text_table
from resnext_train.evaluation.wilson import wilson_interval

FEW_CLASSES = 12
"""Up to so many classes are all listed."""

_LISTED = 5
"""Of more, so many of the worst; and as many confusions."""

_NAME = 15
"""Columns of a line's name, as of the other lines of `resnext eval`."""


def report_lines(table: ClassTable, calibration: Calibration) -> list[str]:
    """Return accuracies with their 95 % intervals, loss and calibration."""
    return [
        _accuracy_line("accuracy", table.top1_correct, table.count),
        _accuracy_line("top-5 accuracy", table.top5_correct, table.count),
        f"{'loss':{_NAME}s}{calibration.loss:.4f}  (mean negative log-likelihood)",
        f"{'calibration':{_NAME}s}{calibration.error:.2f} % expected calibration error, {len(calibration.bins())} bins",
    ]


def table_lines(table: ClassTable) -> list[str]:
    """Return the end of the console's output: classes and confusions.

    All classes are listed if there are at most 12, else the five least accurate. Lines hold no control characters, and
    long titles are cut.
    """
    titles = short_titles(table.classes, table.titles)
    return [*_class_lines(table, titles), *_confusion_lines(table, titles)]


def report_values(table: ClassTable, calibration: Calibration) -> dict[str, Any]:
    """Return the same as plain values; accuracies, intervals and the calibration's error in per cent, loss in nats."""
    worst = table.worst(_listed(table))
    return {
        "count": table.count,
        **_accuracy_values("top1", table.top1_correct, table.count),
        **_accuracy_values("top5", table.top5_correct, table.count),
        "calibration": calibration.to_dict(),
        "worst_classes": [table.row_values(row) for row in worst],
        "confusions": [table.confusion_values(confusion) for confusion in table.confusions(_LISTED)],
    }


def _listed(table: ClassTable) -> int:
    return FEW_CLASSES if len(table.classes) <= FEW_CLASSES else _LISTED


def _accuracy_values(key: str, correct: int, count: int) -> dict[str, Any]:
    share = 100 * correct / count if count else None
    return {key: share, f"{key}_correct": correct, f"{key}_interval": list(wilson_interval(correct, count))}


def _accuracy_line(name: str, correct: int, count: int) -> str:
    low, high = wilson_interval(correct, count)
    share = f"{100 * correct / count:.3f} %" if count else "none"
    return f"{name:{_NAME}s}{share}  ({correct} of {count}; 95 % interval {low:.2f} to {high:.2f})"


def _class_lines(table: ClassTable, titles: Sequence[str]) -> list[str]:
    rows = table.worst(_listed(table))
    head = ("class" if len(table.classes) <= FEW_CLASSES else "worst classes", "accuracy", "95 % interval", "images")
    cells = [_class_cells(row, titles) for row in rows]
    return ["", *text_table((*head, "most often taken for"), cells, "<>>><")] if rows else []


def _class_cells(row: ClassRow, titles: Sequence[str]) -> tuple[str, ...]:
    low, high = row.interval
    wrong = row.confused_with
    taken_for = f"{wrong.count} {titles[wrong.predicted]}" if wrong else ""
    return titles[row.number], f"{row.accuracy:.1f} %", f"{low:.1f} to {high:.1f}", str(row.count), taken_for


def _confusion_lines(table: ClassTable, titles: Sequence[str]) -> list[str]:
    cells = [(titles[c.label], titles[c.predicted], f"{c.count} of {c.of}") for c in table.confusions(_LISTED)]
    return ["", *text_table(("most confused", "taken for", "images"), cells, "<<>")] if cells else []
