"""Whole runs in this process: when they evaluate, save and end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torchvision

from helpers.commands import train
from helpers.runs import RUN, events


def test_a_run_saves_after_a_time(tmp_path: Path) -> None:
    """Within an epoch, though neither steps nor epochs ask for it."""
    out = tmp_path / "run"
    assert train([*RUN, "--out", str(out), "checkpoint.every_minutes=1e-6", "checkpoint.every_epochs=9"]) == 0
    assert {1, 2, 4} <= {event["step"] for event in events(out, "checkpoint")}


def test_a_run_that_diverges_still_ends_in_order(tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert train([*RUN, "--out", str(out), "optimizer.lr=1e30"]) == 0

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    summary = json.loads((out / "summary.json").read_text(), parse_constant=refuse)
    assert summary["last"]["loss"] is None
    assert summary["last"]["top1_correct"] == 0, "a network that diverged is never right"
    assert (summary["best"]["epoch"], summary["last"]["epoch"]) == (1, 2), "the best is the first of those as good"
    for line in (out / "log.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=refuse)


def test_max_steps_ends_in_mid_epoch_with_an_evaluation(tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert train([*RUN, "--out", str(out), "train.max_steps=4", "checkpoint.keep=1"]) == 0
    (start,) = events(out, "start")
    assert f"torchvision {torchvision.__version__}" in start["jpeg"]["decoders"]
    assert start["jpeg"]["passed_over"].keys() <= {"simplejpeg"}
    assert [(e["epoch"], e["step"], e["val_count"]) for e in events(out, "epoch")] == [(1, 3, 37), (2, 4, 37)]
    names = sorted(p.name for p in (out / "checkpoints").iterdir())
    assert names == ["best.pt", "epoch_0002.pt", "last.pt", "previous.pt"]


@pytest.mark.slow
def test_evaluation_every_second_epoch(tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert train([*RUN, "--out", str(out), "train.epochs=3", "eval.every_epochs=2"]) == 0
    assert [e["val_count"] for e in events(out, "epoch")] == [None, 37, 37]


@pytest.mark.slow
def test_compiled_training_is_close_to_eager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The whole of torch.compile but its last stage, the C++ compiler, which takes a minute.
    compile_whole = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: compile_whole(self, backend="aot_eager"))
    out = tmp_path / "compiled"
    one_step = ["train.max_steps=1", "log.every=1"]
    assert train([*RUN, "--out", str(tmp_path / "eager"), *one_step]) == 0
    assert train([*RUN, "--out", str(out), *one_step, "train.compile=true"]) == 0
    eager, compiled = (events(p, "step")[0]["loss"] for p in (tmp_path / "eager", out))
    assert compiled == pytest.approx(eager, rel=1e-4)
    assert "conv1.weight" in torch.load(out / "checkpoints" / "last.pt", weights_only=True)["model"]
