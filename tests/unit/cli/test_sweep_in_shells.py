"""`resnext sweep` as a command: its words, its refusals, and a console that goes away."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from helpers.run_folders import write_run
from helpers.runs import environment, module
from resnext_train.cli.main import main


def test_recipes_may_be_named_one_by_one_and_lines_run_in_a_shell(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--config", "smoke", "--config", "cifar/resnet20", "--out", str(tmp_path / "a b"), "data.root=/my images"]
    assert main(["sweep", *words, "data.source=folder", "--print"]) == 0
    lines = capsys.readouterr().out
    pipe = ["sh", "-c", "tr '\\n' '\\0' | xargs -0 -n 1 sh -c"]  # as in the README
    shown = "resnext() { printf '%s\\n' \"$5\"; }; "
    done = subprocess.run(
        pipe,
        input="".join(shown + line + "\n" for line in lines.splitlines()),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split("\n")[:2] == [f"{tmp_path}/a b/smoke", f"{tmp_path}/a b/cifar/resnet20"]


def test_a_launcher_starts_no_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    launcher = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}
    for name, value in launcher.items():
        monkeypatch.setenv(name, value)
    assert main(["sweep", "--config", "smoke", "--out", str(tmp_path), "--print"]) == 2
    assert "--procs" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_reader_who_leaves_ends_no_sweep(tmp_path: Path) -> None:
    write_run(tmp_path / "smoke", overrides=["train.epochs=3"], wrong={1})
    sweep = subprocess.Popen(
        module("sweep", "--config", "smoke", "train.epochs=3", "--out", str(tmp_path)),
        env=environment(),
        stdout=subprocess.PIPE,
    )
    assert sweep.stdout is not None
    sweep.stdout.close()
    assert sweep.wait(120) == 0
    assert (tmp_path / "report.html").is_file()
