"""A report in lines for terminals."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.run_folders import write_run
from resnext_train.evaluation.text_table import text_width
from resnext_train.report.report_content import build_report
from resnext_train.report.tables.sparkline import ASCII, BLOCKS, sparkline
from resnext_train.report.tables.table import Column, Table
from resnext_train.report.tables.text_report import report_lines, table_lines

SMALL = Table("t", "Title", "A caption.", (Column("Run"), Column("A number", numeric=True)), (("a", "1.5"), ("bc", "")))


def test_a_small_table() -> None:
    assert table_lines(SMALL, 80) == [
        "Title",
        "-----",
        "A caption.",
        "",
        "Run  A number",
        "a         1.5",
        "bc          –",
    ]


def test_heads_are_stacked_before_rows_are_taken_apart() -> None:
    assert table_lines(SMALL, 11)[3:] == [
        "",
        "          A",
        "Run  number",
        "a       1.5",
        "bc        –",
    ]


def test_a_wide_table_has_a_block_for_each_row() -> None:
    columns = (Column("Run"), *(Column(f"Column {i}") for i in range(4)))
    table = Table("t", "T", "", columns, (("a", "x" * 30, "", "some words " * 8, "end"),))
    assert table_lines(table, 44) == [
        *("T", "-", "", ""),
        "a",
        "  Column 0  " + "x" * 30,
        "  Column 1  –",
        "  Column 2  some words some words some words",
        "            some words some words some words",
        "            some words some words",
        "  Column 3  end",
    ]


def test_optional_columns_and_the_beginnings_of_names_give_way_to_the_rest() -> None:
    columns = (Column("Run"), Column("More", optional=True), Column("95 % interval", numeric=True))
    table = Table("t", "T", "", columns, (("a/long/name/of/a/run", "more", "1 to 2"), ("b", "x", "")))
    assert table_lines(table, 34)[4:] == [
        "                          95 %",
        "Run                   interval",
        "a/long/name/of/a/run    1 to 2",
        "b                            –",
    ]
    assert table_lines(table, 24)[4:] == [
        "Run     95 % interval",
        "...run         1 to 2",
        "b                   –",
    ]


def test_numbers_keep_their_sign() -> None:
    table = Table("t", "T", "An interval of 95 % is wide.", (Column("Run"),), (("a",),))
    assert table_lines(table, 18)[2:5] == ["An interval of", "95 % is wide.", ""]


@pytest.mark.parametrize("columns", [20, 40, 80, 100, 500])
@pytest.mark.parametrize("unicode", [True, False])
def test_no_line_is_wider_than_the_terminal(tmp_path: Path, columns: int, unicode: bool) -> None:
    names = ["a", "日本語の実行" * 6, "n" * 120, "with\x1b[31m\nlines", "b"]
    for i, name in enumerate(names):
        write_run(tmp_path / name, (40.0, 60.0, 70.0 + i), seed=i, wrong=range(10 * i), ema=(1.0, 2.0, 75.0))
    write_run(tmp_path / "c/new", (), epochs=3, status="failed", machine=None, overrides=["optimizer.lr=3"])
    lines = report_lines(build_report([tmp_path]), columns, unicode)
    assert max(map(text_width, lines)) <= max(40, min(columns, 120))
    assert all(line.isprintable() for line in lines)
    assert unicode or all(line.isascii() for line in lines)
    text = "\n".join(lines)
    titles = ["Curves", "Results", "Seeds", "Differences image by image", "Runs", "Differences of the recipes"]
    places = [text.index(f"\n{title}\n{'-' * len(title)}\n") for title in titles]
    assert places == sorted(places)


def test_a_title_in_ascii_is_no_wider(tmp_path: Path) -> None:
    lines = report_lines(build_report([write_run(tmp_path / ("é" * 60))]), 40, unicode=False)
    assert max(map(len, lines)) <= 40


def test_curves_share_a_logarithmic_scale() -> None:
    """From 1 % to 81 % a level is 81^(1/8) = 1.732 times the one before: the third begins at 3, the fifth at 9."""
    assert sparkline([81, 9.1, 3.1, 1], 10, 1, 81) == "█▅▃▁"
    assert sparkline([8.9, 2.9], 10, 1, 81) == "▄▂"
    assert sparkline([81, 9.1, 3.1, 1], 10, 1, 81, ASCII) == "@+-."
    assert sparkline([5, 5], 10, 5, 5) == "▁▁"
    assert sparkline([0.0, 50], 10, 0, 50)[0] == BLOCKS[0]


def test_a_column_of_a_long_curve_is_a_mean() -> None:
    assert sparkline([90, 72, 5, 3, 1, 1], 3, 1, 81) == "█▃▁"  # the means are 81, 4 and 1
    assert len(sparkline([50.0] * 100, 40, 1, 81)) == 40


def test_a_curve_for_each_run_with_evaluations(tmp_path: Path) -> None:
    write_run(tmp_path / "a", (10.0, 90.0, 80.0))
    write_run(tmp_path / "b", (), epochs=2, status="failed")
    lines = report_lines(build_report([tmp_path]))
    assert "a    █▁▃    90.00   10.00  20.00" in lines
