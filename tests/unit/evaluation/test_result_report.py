"""The report of an evaluation: its lines fit a terminal, and say what was counted."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pytest

from helpers.image_results import results_of
from resnext_train.evaluation.calibration import Calibration
from resnext_train.evaluation.class_table import ClassTable
from resnext_train.evaluation.image_results import ImageResults
from resnext_train.evaluation.result_report import report_lines, report_values, table_lines
from resnext_train.run_dir.jsonl_sink import to_json


def measured(
    results: ImageResults, classes: Sequence[str], titles: Sequence[str] | None = None
) -> tuple[ClassTable, Calibration]:
    sinks = ClassTable(classes, titles), Calibration()
    for sink in sinks:
        sink.add(results)
    return sinks


def listed(lines: list[str], first: str) -> list[str]:
    """The lines of the table whose head begins so."""
    start = next(i for i, line in enumerate(lines) if line.startswith(first))
    rest = [*lines[start + 1 :], ""]
    return rest[: rest.index("")]


@pytest.mark.parametrize(("classes", "first", "rows"), [(7, "class ", 7), (12, "class ", 12), (13, "worst classes", 5)])
def test_few_classes_are_all_listed_and_of_many_the_worst_five(classes: int, first: str, rows: int) -> None:
    names = [f"c{i}" for i in range(classes)]
    table, calibration = measured(results_of(500, classes), names)
    lines = [*report_lines(table, calibration), *table_lines(table)]
    shown = [line.split()[0] for line in listed(lines, first)]
    assert shown == [names[row.number] for row in table.worst(rows)]
    assert len(shown) == rows
    values = report_values(table, calibration)
    assert [row["class"] for row in values["worst_classes"]] == shown
    assert len(listed(lines, "most confused")) == len(values["confusions"]) == 5


def test_every_accuracy_has_its_counts_and_interval() -> None:
    """81 of 263: 25.53 to 36.62 (Newcombe 1998, table I)."""
    labels = np.zeros(263, np.int64)
    best = (np.arange(263) >= 81).astype(np.int64)[:, None]
    results = ImageResults(np.arange(263), labels, best[:, 0], np.ones(263), best, np.full((263, 1), 0.5))
    table, calibration = measured(results, ["n02012849", "n03126707"], ["crane", "crane"])
    lines = [*report_lines(table, calibration), *table_lines(table)]
    assert lines[0].split(None, 1) == ["accuracy", "30.798 %  (81 of 263; 95 % interval 25.53 to 36.62)"]
    assert lines[1].split(None, 2)[2] == "100.000 %  (263 of 263; 95 % interval 98.56 to 100.00)"
    assert listed(lines, "class ") == ["crane (n02012849)    30.8 %   25.5 to 36.6     263  182 crane (n03126707)"]
    assert [line.split("  ")[-1].strip() for line in listed(lines, "most confused")] == ["182 of 263"]
    values = report_values(table, calibration)
    assert (values["top1"], values["top1_correct"], values["count"]) == (pytest.approx(8100 / 263), 81, 263)
    assert values["top1_interval"] == pytest.approx([25.53, 36.62], abs=0.005)
    assert values["top5_interval"][1] == 100.0
    assert values["calibration"]["error"] == pytest.approx(100 * abs(81 / 263 - 0.5))
    assert values["calibration"]["loss"] == 1.0
    assert values["confusions"][0] == {
        "label": "n02012849",
        "title": "crane",
        "predicted": "n03126707",
        "predicted_title": "crane",
        "count": 182,
        "of": 263,
    }


@pytest.mark.parametrize(
    "titles",
    [["x" * 200, "y" * 200, "z"], ["ウサギ" * 30, "é" * 60, "e\u0301" * 60], ["a\x1b[31m\n", "\u202e" * 50, "b"]],
    ids=["long", "wide", "controls"],
)
def test_lines_fit_80_columns_and_control_nothing(titles: list[str]) -> None:
    lines = table_lines(measured(results_of(3000, 3), ["a", "b", "c"], titles)[0])
    assert all(line.isprintable() for line in lines)
    wide = [sum(2 if "ァ" <= c <= "ヺ" else 0 if c == "\u0301" else 1 for c in line) for line in lines]
    assert max(wide) <= 80
    assert max(wide) > 70, "nor is room wasted"


def test_plain_values_are_json_also_of_a_diverged_network_or_no_image() -> None:
    results = results_of(30, 3)
    table, calibration = measured(results, ["a", "b", "c"])
    values = report_values(table, calibration)
    assert json.loads(to_json(values)) == values
    nothing = results._replace(scores=np.full((30, 3), np.nan), losses=np.full(30, np.inf))
    values = report_values(*measured(nothing, ["a", "b", "c"]))
    assert json.loads(to_json(values))["calibration"]["error"] is None
    empty = ClassTable(["a"]), Calibration()
    assert json.loads(to_json(report_values(*empty)))["top1"] is None
    assert report_lines(*empty)[0].startswith("accuracy")
