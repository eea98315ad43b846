"""What a run that fails leaves, and what it survives."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from helpers.commands import train
from helpers.runs import RUN, events, state_of
from resnext_train.checkpoint import checkpoint_file
from resnext_train.errors import InputError
from resnext_train.evaluation.evaluate import evaluate
from resnext_train.training import validation
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
    assert [e["step"] for e in events(out, "checkpoint_failed")] == [3, 3]
    assert json.loads((out / "summary.json").read_text())["best"]["epoch"] == 2
    assert checkpoint_file.load(out / "checkpoints" / "best.pt")["checkpointer"]["best"]["epoch"] == 2


def results(monkeypatch: pytest.MonkeyPatch, *correct: int) -> None:
    """Let evaluations count these many images as right."""
    rest = iter(correct)
    monkeypatch.setattr(validation, "evaluate", lambda *a: [replace(evaluate(*a)[0], top1_correct=next(rest))])


def best_of(checkpoint: Path) -> tuple[int, int]:
    best = checkpoint_file.load(checkpoint)["checkpointer"]["best"]
    return best["epoch"], best["top1_correct"]


def test_a_best_that_is_lost_at_a_stop_gives_way_to_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run is stopped while best.pt is written, which then fails. No worse one may replace that of epoch 1."""
    write, out = checkpoint_file.save, tmp_path / "run"
    run = [*RUN, "--out", str(out), "train.epochs=4"]

    def fails_once(state: dict[str, Any], path: Path, names: Sequence[str], *more: Any) -> None:
        if names and state["progress"]["step"] == 6:
            monkeypatch.setattr(checkpoint_file, "save", write)
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.5)
            raise OSError(28, "No space left on device")
        write(state, path, names, *more)

    results(monkeypatch, 10, 20, 3, 2)
    monkeypatch.setattr(checkpoint_file, "save", fails_once)
    assert train(run) == 75
    assert best_of(out / "checkpoints" / "last.pt") == best_of(out / "checkpoints" / "best.pt") == (1, 10)
    assert train(run) == 0
    assert best_of(out / "checkpoints" / "best.pt") == (1, 10)


def test_a_run_goes_on_with_the_best_that_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a run was killed after the best.pt of epoch 2 could not be written."""
    checkpoints = tmp_path / "run" / "checkpoints"
    run = [*RUN, "--out", str(tmp_path / "run"), "checkpoint.keep=9"]
    results(monkeypatch, 10, 20, 3, 2)
    assert train(run) == 0
    (checkpoints / "epoch_0001.pt").replace(checkpoints / "best.pt")
    assert train([*run, "--resume", str(checkpoints / "last.pt"), "train.epochs=4"]) == 0
    assert best_of(checkpoints / "best.pt") == (1, 10)


def test_the_two_saves_of_an_epochs_end_are_one_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(checkpoint_file, "save", fails)
    options = ["train.epochs=9", "checkpoint.every_minutes=null", "checkpoint.max_failures=2"]
    assert train([*RUN, "--out", str(tmp_path / "run"), *options]) == 1
    failed = [e["step"] for e in events(tmp_path / "run", "checkpoint_failed")]
    assert failed == [3, 3, 6, 6, 9] or failed == [3, 3, 6, 6, 9, 9]
    assert "Read-only file system" in events(tmp_path / "run", "failed")[0]["text"]


def test_a_save_before_an_evaluation_does_not_hide_that_those_after_it_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = checkpoint_file.save

    def fails(state: dict[str, Any], *more: Any) -> None:
        if not state["progress"]["epoch_is_open"]:
            raise OSError(28, "No space left on device")
        write(state, *more)

    monkeypatch.setattr(checkpoint_file, "save", fails)
    out = tmp_path / "run"
    assert train([*RUN, "--out", str(out), "train.epochs=9", "checkpoint.max_failures=1"]) == 1
    assert [e["step"] for e in events(out, "checkpoint_failed")] == [3, 6]


def test_a_stop_tries_again_what_could_not_be_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, calls = checkpoint_file.save, itertools.count()

    def fails_once(*arguments: Any) -> None:
        if next(calls) == 0:
            raise OSError(28, "No space left on device")
        write(*arguments)

    def stopped(model: Any, batches: Any, *more: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return evaluate(model, batches, *more)

    monkeypatch.setattr(checkpoint_file, "save", fails_once)
    monkeypatch.setattr(validation, "evaluate", stopped)
    assert train([*RUN, "--out", str(tmp_path / "run")]) == 75
    assert state_of(tmp_path / "run")["status"] == "preempted"
    assert checkpoint_file.load(tmp_path / "run" / "checkpoints" / "last.pt")["progress"]["step"] == 3


def test_an_image_of_validation_that_cannot_be_read_costs_no_training(
    image_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, bad = tmp_path / "run", image_root / "val" / "dog" / "1.JPEG"
    arguments = [*RUN, "data.source=folder", f"data.root={image_root}", "--out", str(out)]
    content = bad.read_bytes()
    bad.write_bytes(b"")
    arguments = [a for a in arguments if not a.startswith(("data.train_", "data.val_", "data.size", "data.classes"))]
    assert train(arguments) == 2
    assert str(bad) in capsys.readouterr().err
    bad.write_bytes(content)
    assert train(arguments) == 0
    assert [e["step"] for e in events(out, "start")] == [0, 2]  # 24 images: a step of 16, and one of 8
    assert [e["step"] for e in events(out, "epoch")] == [2, 4]
    assert [e["step"] for e in events(out, "checkpoint") if e["epoch_is_open"]] == [2, 4], "what is there stays"


def test_a_checkpoint_before_an_evaluation_is_kept_until_the_next_alone(tmp_path: Path) -> None:
    """last.pt and previous.pt are those of checkpoint.every_epochs, as if no others had been written."""
    out = tmp_path / "run"
    assert train([*RUN, "--out", str(out), "train.epochs=4", "checkpoint.every_epochs=3"]) == 0
    saves = [(e["step"], e["epoch_is_open"]) for e in events(out, "checkpoint")]
    best = [e["step"] for e in events(out, "checkpoint") if e["best"]]
    assert [step for step, is_open in saves if is_open] == [3, 6, 9, 12]
    assert {9, 12} | set(best) == {step for step, is_open in saves if not is_open}
    held = {name: checkpoint_file.load(out / "checkpoints" / name)["progress"] for name in ("last.pt", "previous.pt")}
    assert (held["last.pt"]["step"], held["last.pt"]["epoch_is_open"]) == (12, False)
    assert (held["previous.pt"]["step"], held["previous.pt"]["epoch_is_open"]) == (9, False)


@pytest.mark.parametrize(("folder", "choice"), [("run", "starts a new run"), ("run/checkpoints", "another --out")])
def test_a_folder_that_is_gone_is_no_full_disk(
    folder: str, choice: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, step = tmp_path / "run", TrainStep.__call__

    def removed(self: TrainStep, micro_batches: Any, number: int, *more: Any) -> None:
        if number == 4:
            # Moved first: a background write would add files to a folder that is being removed.
            shutil.rmtree((tmp_path / folder).rename(tmp_path / "gone"))
        step(self, micro_batches, number, *more)

    monkeypatch.setattr(TrainStep, "__call__", removed)
    assert train([*RUN, "--out", str(out), "train.epochs=9", "checkpoint.max_failures=0"]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert f"{tmp_path / folder} is gone" in error
    assert choice in error
    assert "room" not in error


def test_a_run_that_is_not_finite_skips_tells_and_stops(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    options = ["optimizer.lr=null", "optimizer.lr_per_256=1e30", "train.max_skipped=2", "train.epochs=4", "log.every=1"]
    assert train([*RUN, "--out", str(out), *options]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    skipped = events(out, "skipped")
    assert [e["step"] - skipped[0]["step"] for e in skipped] == [0, 1, 2]
    assert all(len(e["images"]) == 16 and e["lr"] > 1e28 for e in skipped)
    assert state_of(out)["status"] == "failed"
    first, last = skipped[0]["step"], skipped[-1]["step"]
    assert all(
        fact in error
        for fact in (f" step {last}: ", f" {first} to {last} ", "lower optimizer.lr_per_256, or", "--resume")
    ), error
    assert error.partition("error: ")[2] == events(out, "failed")[0]["text"]
