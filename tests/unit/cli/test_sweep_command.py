"""What `resnext sweep` takes from its command line, as the command lines that it prints."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from helpers.runs import SMALL
from resnext_train.cli.main import main
from resnext_train.config import load_recipe


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[list[str]]:
    assert main(["sweep", *arguments, "--print"]) == 0
    return [shlex.split(line) for line in capsys.readouterr().out.splitlines()]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_overrides_may_stand_behind_any_option(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--config", "smoke", "train.epochs=3", "--set", "optimizer.lr=0.1,0.2", "data.size=40", "--lr", "1"]
    lines = printed(capsys, *arguments, "train.max_skipped=5")
    assert [line[5] for line in lines] == ["runs/smoke-lr0.1", "runs/smoke-lr0.2"]
    for line in lines:
        assert {"train.epochs=3", "data.size=40", "train.max_skipped=5"} <= set(line)
    assert [line[-1] for line in lines] == ["optimizer.lr=0.1", "optimizer.lr=0.2"]  # which win over --lr


def test_the_recipes_of_a_paper_s_table(capsys: pytest.CaptureFixture[str]) -> None:
    """ResNeXt paper, Table 7: two networks on CIFAR-10 and on CIFAR-100."""
    lines = printed(capsys, "--table", "7", "--seeds", "4:6", "--out", "x", "data.root=y")
    assert sorted(line[5] for line in lines) == sorted(
        f"x/cifar/resnext29_{name}-seed{seed}"
        for name in ("8x64d", "16x64d", "8x64d_cifar100", "16x64d_cifar100")
        for seed in (4, 5)
    )


def test_what_is_done_is_not_printed(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--config", "smoke", *SMALL, "--seeds", "0:2"]
    first = Path(printed(capsys, *arguments)[0][5])
    (first / "checkpoints").mkdir(parents=True)
    (first / "checkpoints" / "last.pt").touch()
    (first / "recipe.yaml").write_text(load_recipe("smoke", [*SMALL, "train.seed=0"]).to_yaml())
    (first / "state.json").write_text(json.dumps({"status": "done", "step": 6}))
    assert [line[5] for line in printed(capsys, *arguments)] == ["runs/smoke-seed1"]
    (first / "state.json").write_text(json.dumps({"status": "preempted", "step": 6}))
    assert len(printed(capsys, *arguments)) == 2


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--config"],
        ["--config", "data.root=x"],
        ["--config", "smoke", "--seeds", "a"],
        ["--config", "smoke", "--set", "lr=1,2"],
        ["--config", "smoke", "--procs", "0"],
        ["--table", "9"],
        ["--config", "smoke", "resnet"],
    ],
)
def test_other_arguments_are_refused(arguments: list[str]) -> None:
    try:
        code = main(["sweep", *arguments])
    except SystemExit as end:  # of argparse
        code = int(str(end.code))
    assert code == 2
    assert not list(Path().iterdir())


@pytest.mark.parametrize("option", ["--seed", "--name", "--resume"])
def test_options_of_a_single_run_are_answered(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", "--config", "smoke", option, "3"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert {"--seed": "--seeds", "--name": "--out", "--resume": "same sweep"}[option] in line
    assert "auto_augment" not in line
