"""What a run that fails leaves, and what it survives."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from helpers.commands import train
from helpers.runs import RUN, events, state_of
from resnext_train.checkpoint import checkpoint_file
from resnext_train.errors import InputError
from resnext_train.training.train_step import TrainStep


def test_a_run_that_fails_while_it_saves_ends_as_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = checkpoint_file.save

    def slow(*arguments: Any) -> None:
        time.sleep(0.5)
        write(*arguments)

    def fails(self: TrainStep, micro_batches: Any, number: int, *more: Any) -> None:
        if number == 2:
            raise InputError("an image that cannot be read")
        step(self, micro_batches, number, *more)

    step = TrainStep.__call__
    monkeypatch.setattr(TrainStep, "__call__", fails)
    monkeypatch.setattr(checkpoint_file, "save", slow)
    assert train([*RUN, "--out", str(tmp_path / "run"), "checkpoint.every_steps=1"]) == 2
    assert state_of(tmp_path / "run") == {"status": "failed", "step": 2}
    assert checkpoint_file.load(tmp_path / "run" / "checkpoints" / "last.pt")["progress"]["step"] == 2


def test_a_best_checkpoint_that_is_not_written_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No image is right in either epoch: the second is the best, but only because the first could not be saved."""
    write, out = checkpoint_file.save, tmp_path / "run"

    def fails(state: dict[str, Any], *more: Any) -> None:
        if state["progress"]["step"] == 3:
            raise OSError(28, "No space left on device")
        write(state, *more)

    monkeypatch.setattr(checkpoint_file, "save", fails)
    assert train([*RUN, "--out", str(out), "optimizer.lr=1e30"]) == 0
    assert [e["step"] for e in events(out, "checkpoint_failed")] == [3]
    assert json.loads((out / "summary.json").read_text())["best"]["epoch"] == 2
    assert checkpoint_file.load(out / "checkpoints" / "best.pt")["checkpointer"]["best"]["epoch"] == 2


def test_a_run_that_is_not_finite_skips_tells_and_stops(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    options = ["optimizer.lr=1e30", "train.max_skipped=2", "train.epochs=4", "log.every=1"]
    assert train([*RUN, "--out", str(out), *options]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    skipped = events(out, "skipped")
    assert [e["step"] - skipped[0]["step"] for e in skipped] == [0, 1, 2]
    assert all(len(e["images"]) == 16 and e["lr"] > 1e29 for e in skipped)
    assert state_of(out)["status"] == "failed"
    first, last = skipped[0]["step"], skipped[-1]["step"]
    assert all(fact in error for fact in (f" step {last}: ", f" {first} to {last} ", "optimizer.lr", "--resume")), error
    assert error.partition("error: ")[2] == events(out, "failed")[0]["text"]
