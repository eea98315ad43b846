"""`resnext report --table`."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from helpers.commands import report
from helpers.run_folders import MACHINE, write_run
from resnext_train.evaluation.text_table import text_width
from resnext_train.report.papers.paper_table_data import TABLES


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to be in, with one run of Table 7's in runs/ and one that was cut short."""
    monkeypatch.chdir(tmp_path)
    options = {"recipe": "cifar/resnext29_8x64d", "images": 10_000, "machine": MACHINE}
    write_run(tmp_path / "runs" / "cifar" / "a", [96.3], seed=1, epochs=300, **options)  # type: ignore[arg-type]
    write_run(tmp_path / "runs" / "cifar" / "b", [50.0], epochs=2, **options)  # type: ignore[arg-type]
    return tmp_path


def test_it_is_printed_with_what_is_left_out_and_what_fills_it(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report(["--table", "7"]) == 0
    lines = capsys.readouterr().out.splitlines()
    (filled,) = (line for line in lines if "8×64d" in line and "CIFAR-10 " in line)
    assert filled.split()[-7:] == ["CIFAR-10", "3.65", "3.70", "+0.05", "1", "of", "10"]
    assert "  b (train.epochs 300 → 2)" in lines
    assert "  resnext sweep --config cifar/resnext29_8x64d --seeds 0,2,3,4,5,6,7,8,9 data.root=/path/to/cifar" in lines
    assert {path.name for path in runs.iterdir()} == {"runs"}


def test_lines_but_for_commands_fit_the_terminal(
    runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    write_run(runs / "runs" / "c", recipe="cifar/resnext29_8x64d", overrides=["optimizer.lr=0.5", "eval.crop=24"])
    assert report(["--table", "7"]) == 0
    text = capsys.readouterr().out
    assert max(text_width(line) for line in text.splitlines() if not line.startswith("  resnext ")) <= 40
    assert "c (optimizer.lr 0.1 → 0.5, train.epochs 300 → 3, eval.crop 32 → 24)" in " ".join(text.split())


def test_only_the_named_runs_count(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report(["--table", "7", "runs/cifar/b"]) == 0
    assert "0 of 10" in capsys.readouterr().out
    assert report(["--table", "7", "no/such"]) == 2


def test_files_have_the_same_rows(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report(["--table", "7", "--out", "table.csv"]) == 0
    assert report(["--table", "7", "--out", "table.html"]) == 0
    assert capsys.readouterr().out == "written: table.csv\nwritten: table.html\n"
    with Path("table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["Top-1 published"] for row in rows] == ["4.17", "3.65", "3.58", "20.50", "17.77", "17.31"]
    assert [float(row["Top-1 difference"] or 0) for row in rows] == [0, 0.05, 0, 0, 0, 0]
    page = Path("table.html").read_text()
    for row in rows:
        assert all(text in page for text in row.values())
    assert "b (train.epochs 300 → 2)" in page


def test_a_tables_page_has_no_pictures_where_none_are_wanted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "runs/a", [96.3], recipe="cifar/resnext29_8x64d", epochs=300, images=10_000, wrong=range(9))
    assert report(["--table", "7", "--out", "with.html"]) == 0
    assert report(["--table", "7", "--out", "without.html", "--no-pictures"]) == 0
    assert ["data:image/webp" in Path(name).read_text() for name in ("with.html", "without.html")] == [True, False]


@pytest.mark.parametrize("arguments", [["--table"], ["--table", "9"], ["--table", "runs"]])
def test_without_a_tables_name_all_are_listed(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert report(arguments) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert all(f"{name} ({table.title})" in error for name, table in TABLES.items())


def test_other_files_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report(["--table", "3", "--out", str(tmp_path / "table.txt")]) == 2
    assert "table.txt should end in .csv or .html" in capsys.readouterr().err


def test_there_need_not_be_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in (None, "runs"):
        if folder:
            Path(folder).mkdir()
        assert report(["--table", "resnet-4"]) == 0
        assert "resnext train --config resnet152_shortcut_b data.root=/path/to/imagenet" in capsys.readouterr().out
