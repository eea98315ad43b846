"""Runs compared image by image."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from helpers.run_folders import write_evaluation, write_run
from resnext_train.errors import InputError
from resnext_train.report.run_record import read_runs
from resnext_train.report.run_values import RunValues
from resnext_train.report.tables.comparison_table import comparison_table
from resnext_train.report.tables.prediction_reader import read_recognised
from resnext_train.report.tables.table import Table


def table_of(folder: Path) -> Table | None:
    return comparison_table([RunValues(record) for record in read_runs([folder])])


def cells(table: Table | None) -> list[tuple[str, ...]]:
    assert table is not None
    return [row[2:7] for row in table.rows]


def test_two_runs_by_hand(tmp_path: Path) -> None:
    """Of 20 images the first misses 0 to 7, the second 6 to 8: 6 against 1, p = 2 (1 + 7) / 2^7."""
    write_run(tmp_path / "a", images=20, wrong=range(8))
    write_run(tmp_path / "b", images=20, wrong=range(6, 9))
    table = table_of(tmp_path)
    assert table is not None
    assert table.rows == (("a", "b", "11", "1", "6", "2", "0.125", "0.125"),)
    assert "left out" not in table.caption.lower()


def test_the_order_of_lines_does_not_matter(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_run(tmp_path / name, images=300)
    wrong = np.random.default_rng(0).choice(300, 40, replace=False).tolist()
    write_evaluation(tmp_path / "a/evaluation", 300, wrong)
    order = np.random.default_rng(1).permutation(300).tolist()
    write_evaluation(tmp_path / "b/evaluation", 300, wrong, order=order)
    assert cells(table_of(tmp_path)) == [("260", "0", "0", "40", "1")]


def test_names_in_quotes_are_the_same_images(tmp_path: Path) -> None:
    """A quoted path anywhere has the file read in another way, which must give the same."""
    write_evaluation(tmp_path / "e", 30, range(4))
    plain = read_recognised(tmp_path / "e/predictions.csv")
    text = (tmp_path / "e/predictions.csv").read_text()
    lines = [line.replace("val/class_0003/3.png", '"val/class_0003/3.png"') for line in text.splitlines(keepends=True)]
    (tmp_path / "quoted.csv").write_text("".join(lines))
    quoted = read_recognised(tmp_path / "quoted.csv")
    assert quoted.images == plain.images
    assert np.array_equal(quoted.is_correct, plain.is_correct)
    assert plain.is_correct.sum() == 26


def test_other_images_or_labels_are_no_pair(tmp_path: Path) -> None:
    write_run(tmp_path / "a", images=40, wrong=range(4))
    write_run(tmp_path / "b", images=41, wrong=range(4))
    write_run(tmp_path / "c", images=40)
    write_evaluation(tmp_path / "c/evaluation", 40, range(4), classes=9)
    write_run(tmp_path / "d", images=40)  # without predictions
    assert table_of(tmp_path) is None


def test_of_many_runs_the_best_is_tested_against_the_next_ten(tmp_path: Path) -> None:
    for i in range(14):
        write_run(tmp_path / f"r{i:02d}", (80.0 - i,), images=1000, wrong=range(200 + 10 * i))
    table = table_of(tmp_path)
    assert table is not None
    assert [row[:2] for row in table.rows] == [("r00", f"r{i:02d}") for i in range(1, 11)]
    assert "left out: 3." in table.caption
    assert "only the most accurate is tested" in table.caption
    (tmp_path / "nine").mkdir()
    for i in range(9):
        (tmp_path / f"r{i:02d}").rename(tmp_path / f"nine/r{i:02d}")
    nine = table_of(tmp_path / "nine")
    assert nine is not None
    assert [row[0] for row in nine.rows] == ["r00"] * 8
    assert "only the most accurate is tested" in nine.caption
    assert "left out" not in nine.caption
    (tmp_path / "few").mkdir()
    for i in range(8):
        (tmp_path / f"nine/r{i:02d}").rename(tmp_path / f"few/r{i:02d}")
    few = table_of(tmp_path / "few")
    assert few is not None
    assert len(few.rows) == 28
    assert "only the most accurate" not in few.caption


def test_corrected_p_is_never_smaller(tmp_path: Path) -> None:
    for i in range(3):
        write_run(tmp_path / f"r{i}", images=100, wrong=range(10 * i))
    table = table_of(tmp_path)
    assert table is not None
    raw, corrected = ([float(row[place]) for row in table.rows] for place in (6, 7))
    assert raw == pytest.approx([2 / 2**10, 2 / 2**20, 2 / 2**10], rel=0.05)  # shown with two digits and more
    assert corrected == pytest.approx([2 * raw[0], 3 * raw[1], 2 * raw[2]], rel=0.05)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no predictions\n",
        b"path,label,rank,loss\na.png,cat,1,0.5\nb.png,do",
        b"path,label,rank,loss\na.png\n",
        b"path,label,rank,loss\na.png,cat,first,0.5\n",
        b"path,label,rank,loss\na.png,cat,1,0.5\na.png,cat,2,0.5\n",
        b'path,label,rank,loss\n"a\xff",cat,1,0.5\n',
        b"\x00" * 100,
    ],
)
def test_damaged_predictions_are_named_and_left_out(tmp_path: Path, content: bytes) -> None:
    for name in ("a", "b", "c"):
        write_run(tmp_path / name, images=20, wrong=range(3))
    damaged = tmp_path / "b/evaluation/predictions.csv"
    damaged.write_bytes(content)
    with pytest.raises(InputError, match=r"predictions\.csv"):
        read_recognised(damaged)
    table = table_of(tmp_path)
    assert table is not None
    assert [row[:2] for row in table.rows] == [("a", "c")]
    assert str(damaged) in table.caption


def test_without_any_pair_it_is_said_which_predictions_cannot_be_read(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_run(tmp_path / name, images=20, wrong=range(3))
    (tmp_path / "b/evaluation/predictions.csv").write_text("path,label\n")
    table = table_of(tmp_path)
    assert table is not None
    assert table.rows == ()
    assert str(tmp_path / "b/evaluation/predictions.csv") in table.caption
    assert table_of(tmp_path / "b") is None  # a run alone has no pair anyway


def test_predictions_of_earlier_weights_are_said(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_run(tmp_path / name, (60.0, 70.0), images=20, wrong=range(3))
        result = json.loads((tmp_path / name / "evaluation/result.json").read_text())
        (tmp_path / name / "evaluation/result.json").write_text(
            json.dumps({**result, "epoch": 1 if name == "b" else 2})
        )
    table = table_of(tmp_path)
    assert table is not None
    assert "The predictions of b are of epoch 1, not of the last, 2." in table.caption
    assert "predictions of a" not in table.caption
