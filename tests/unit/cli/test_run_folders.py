"""Where `resnext train` puts a run, and what `resnext runs` lists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from helpers.commands import train
from helpers.run_folders import write_run
from helpers.runs import SMALL
from resnext_train.cli.main import main
from resnext_train.evaluation.text_table import text_width
from resnext_train.report.run_list import age


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("options", "folder"),
    [
        ([], "runs/smoke"),
        (["--seed", "3"], "runs/smoke-seed3"),
        (["--name", "a/b"], "runs/a/b"),
        (["--name", "a", "--seed", "3"], "runs/a"),
        (["--out", "x", "--seed", "3"], "x"),
    ],
)
def test_the_run_folder(options: list[str], folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(["--config", "smoke", *SMALL, "--dry-run", *options]) == 0
    assert re.search(rf"^run folder +{folder}$", capsys.readouterr().out, re.MULTILINE)


@pytest.mark.parametrize(
    "options", [["--name", ""], ["--name", "../a"], ["--name", "/a"], ["--name", "a", "--out", "b"]]
)
def test_other_names_are_refused(options: list[str]) -> None:
    assert train(["--config", "smoke", *SMALL, *options]) == 2


def test_a_second_seed_is_a_second_run_and_both_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    short = ["--config", "smoke", *SMALL, "train.epochs=1", "train.max_steps=2"]
    assert train(short) == train([*short, "--seed", "1"]) == 0
    capsys.readouterr()
    assert main(["runs"]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split()[:3] == ["run", "state", "epoch"]
    assert [line.split()[:3] for line in lines] == [["smoke", "done", "1/1"], ["smoke-seed1", "done", "1/1"]]
    (Path("runs") / "smoke" / "state.json").write_text('{"status": "running", "step": 2}')  # as after SIGKILL
    (Path("runs") / "smoke-seed1" / "summary.json").write_text("{")
    assert main(["runs", "runs/smoke", "runs/smoke-seed1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines[1:]] == ["killed", "done"]
    assert [line.split()[3] for line in lines[1:]] != ["–", "–"]


def test_names_of_runs_cannot_control_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("日本語", "a\x1b[31m", "b"):
        write_run(tmp_path / "runs" / name)
    assert main(["runs"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(line.isprintable() for line in lines)
    assert len({text_width(line.partition("done")[0]) for line in lines[1:]}) == 1


def test_where_no_runs_are_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs"]) == 2
    Path("runs").mkdir()
    assert main(["runs"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 2


@pytest.mark.parametrize(
    ("seconds", "text"), [(-5, "0 s"), (59.4, "59 s"), (60, "1 min"), (7200, "2 h"), (86_400 * 3, "3 d")]
)
def test_ages(seconds: float, text: str) -> None:
    assert age(seconds) == text
