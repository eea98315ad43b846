"""`resnext report`."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.commands import Refuses, evaluate, report
from helpers.run_folders import write_run
from helpers.runs import environment
from resnext_train.cli.main import main
from resnext_train.report.run_record import find_runs
from resnext_train.run_dir.run_lock import RunLock


def rows_in(folder: Path) -> list[dict[str, str]]:
    with (folder / "summary.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_a_real_run_with_its_evaluation(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    run = tmp_path / "smoke"
    shutil.copytree(whole, run)
    assert evaluate(["--ckpt", str(run), "--out", str(run / "evaluation")]) == 0
    capsys.readouterr()
    assert report([str(run), "--text", "--out", str(tmp_path / "page.html")]) == 0
    text = capsys.readouterr().out
    (row,) = rows_in(tmp_path)
    summary = json.loads((run / "summary.json").read_text())
    assert int(row["best_top1_correct"]) == summary["best"]["top1_correct"]
    assert int(row["final_top1_correct"]) == summary["last"]["top1_correct"]
    assert (row["best_count"], row["epochs_finished"], row["status"]) == ("37", "2", "done")
    assert float(row["images_per_s"]) == summary["images_per_s"]
    assert f"{summary['best']['top1_correct']} of 37" in text
    assert "Run smoke" in text.splitlines()
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.slow
def test_where_the_numbers_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = write_run(tmp_path / "runs/a"), write_run(tmp_path / "runs/b", seed=1)
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    assert report([str(a)]) == 0
    assert report([str(a.parent)]) == 0
    assert report([str(a), str(b)]) == 0
    assert report([str(a), "--out", str(tmp_path / "x.html")]) == 0
    counts = [len(rows_in(folder)) for folder in (a, a.parent, here, tmp_path)]
    assert counts == [1, 2, 2, 1]


def test_text_alone_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = write_run(tmp_path / "runs/a", wrong=range(5))
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    assert report(["--text"]) == 0  # of the folder runs
    assert report([str(run), "--text"]) == 0
    assert sorted(tmp_path.rglob("*")) == before


def test_a_run_that_is_running(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", status="running")
    hold = f"from pathlib import Path\nfrom {RunLock.__module__} import RunLock\n"
    hold += f"lock = RunLock(Path({str(run / '.lock')!r}))\nprint('locked', flush=True)\ninput()\n"
    with subprocess.Popen([sys.executable, "-c", hold], stdin=-1, stdout=-1, env=environment()) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"locked\n"
        assert report([str(run)]) == 0
        (row,) = rows_in(run)
        process.communicate(b"\n")
    assert row["status"] == "running"
    assert report([str(run)]) == 0
    (row,) = rows_in(run)
    assert row["status"] == "killed"


def test_what_is_no_run_is_refused(tmp_path: Path, refuses: Refuses, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    run = str(write_run(tmp_path / "a"))
    assert "nowhere" in refuses(report, "nowhere")
    assert "nowhere" in refuses(report, run, "nowhere")
    assert "file" in refuses(report, "file")
    assert "empty" in refuses(report, "empty")
    assert "report runs/" in refuses(report)
    assert "--out" in refuses(report, run, "--out", "empty")
    assert "none" in refuses(report, run, "--out", "none/report.html")


@pytest.mark.parametrize("name", ["plot", "compare"])
def test_other_names_of_the_command_are_answered(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "runs"]) == 2
    assert "did you mean report?" in capsys.readouterr().err


def test_text_needs_neither_torch_nor_matplotlib_and_any_console_takes_it(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", wrong=range(5))
    code = "import sys; from resnext_train.cli.main import main; code = main(['report', sys.argv[1], '--text']); "
    code += "assert not {'torch', 'matplotlib'} & sys.modules.keys(); sys.exit(code)"
    env = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", code, str(run)], capture_output=True, env=env, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.isascii()
    assert b"\\u" not in done.stdout
    assert b"ResNeXt-14 (8x4d)" in done.stdout


def test_a_run_is_shown_once_by_whatever_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = write_run(tmp_path / "runs/a")
    (tmp_path / "link").symlink_to(run)
    monkeypatch.chdir(tmp_path)
    assert report(["link", "runs", str(run), "--out", "page.html"]) == 0
    assert [row["folder"] for row in rows_in(tmp_path)] == ["link"]


@pytest.mark.parametrize("table", [[], ["--table", "7"]])
def test_the_home_folder_may_be_short(tmp_path: Path, table: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Shells leave ~ as it is in --out=~/page.html."""
    write_run(tmp_path / "runs/a", recipe="cifar/resnext29_8x64d", images=10_000)
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    assert report([*table, "runs", "--out=~/page.html"]) == 0
    assert {path.name for path in (tmp_path / "home").iterdir()} >= {"page.html"}
    assert {path.name for path in tmp_path.iterdir()} == {"home", "runs"}


def test_names_of_any_digits_are_sorted(tmp_path: Path) -> None:
    for name in ("run²", "²", "run10", "run9", "٣"):
        write_run(tmp_path / name)
    assert report([str(tmp_path), "--out", str(tmp_path / "page.html")]) == 0
    names = [row["run"] for row in rows_in(tmp_path)]
    assert names.index("run9") < names.index("run10")


def test_a_folder_that_may_not_be_seen_hides_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests' user may see all: os.stat answers as it does others."""
    write_run(tmp_path / "runs/a")
    write_run(tmp_path / "runs/hers")
    stat = os.stat

    def refusing(path: object, *arguments: object, **options: object) -> os.stat_result:
        if "hers/" in str(path):
            raise PermissionError(13, "Permission denied", str(path))
        return stat(path, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "stat", refusing)
    assert [run.name for run in find_runs([tmp_path / "runs"])] == ["a"]


def test_a_table_that_no_report_wrote_is_kept(tmp_path: Path, refuses: Refuses) -> None:
    run, page = write_run(tmp_path / "runs/a"), tmp_path / "page.html"
    (tmp_path / "summary.csv").write_text("my,own\n")
    assert "summary.csv" in refuses(report, str(run), "--out", str(page))
    assert (tmp_path / "summary.csv").read_text() == "my,own\n"
    assert not page.exists()
    (tmp_path / "summary.csv").write_text("")
    assert report([str(run), "--out", str(page)]) == report([str(run), "--out", str(page)]) == 0
    assert len(rows_in(tmp_path)) == 1
