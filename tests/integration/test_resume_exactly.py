"""Runs that end early and continue, compared bit for bit with undisturbed ones."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.commands import Refuses, train
from helpers.ranks import run_ranks, start_ranks, train_ranks
from helpers.runs import (
    RUN,
    SMALL,
    check_curves,
    comparable,
    equal_runs,
    events,
    final_tensors,
    run_module,
    start_run,
    state_of,
    wait_for_step,
)
from resnext_train.evaluation.evaluate import evaluate
from resnext_train.training import trainer

pytestmark = pytest.mark.slow


def test_a_run_killed_between_its_epochs_checkpoints_continues_bit_identically(whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "killed"
    arguments = ["train", *RUN, "--out", str(out), "log.tensorboard=true"]
    kill_after_a_checkpoint(arguments, out)
    run_module(*arguments)
    check_curves(out)
    assert comparable(out, "step", "epoch") == comparable(whole, "step", "epoch")
    one, two = final_tensors(whole), final_tensors(out)
    assert all(torch.equal(one[k], two[k]) for k in one)


def test_four_processes_killed_and_continued_end_with_the_same_bits(tmp_path: Path) -> None:
    """The order of sums over three and more processes must be the same from a continued run's first step on."""
    options = [*SMALL, "log.every=1", "checkpoint.every_steps=1", "train.epochs=4"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run_ranks(train_ranks, 4, tmp_path, whole, options)
    for step in (2, 5, 8):
        ranks = start_ranks(train_ranks, 4, tmp_path, killed, options)
        deadline = time.monotonic() + 120
        while not any(e["step"] >= step for e in logged(killed)) and time.monotonic() < deadline:
            time.sleep(0.005)
        for rank in ranks:
            rank.kill()
            rank.join()
    run_ranks(train_ranks, 4, tmp_path, killed, options)
    assert len(events(killed, "start")) > 1
    assert comparable(killed, "step", "epoch") == comparable(whole, "step", "epoch")
    one, two = final_tensors(whole), final_tensors(killed)
    assert all(torch.equal(one[k], two[k]) for k in one)


def kill_after_a_checkpoint(arguments: list[str], out: Path) -> None:
    """Start a run and end it by SIGKILL as soon as it has a checkpoint, before its last step."""
    process = subprocess.Popen(
        [sys.executable, "-m", "resnext_train", *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while not (out / "checkpoints" / "last.pt").exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    first = torch.load(out / "checkpoints" / "last.pt", weights_only=True)["progress"]["step"]
    assert first < 6, "killed too late to prove anything"


def logged(run: Path) -> list[dict[str, Any]]:
    return events(run, "step") if (run / "log.jsonl").exists() else []


def test_a_single_process_exits_75_and_continues_bit_identically(whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    job = start_run(out, "data.workers=2", "log.every=1")
    wait_for_step(out)
    os.kill(job.pid, signal.SIGTERM)
    text, _ = job.communicate(timeout=30)
    assert job.returncode == 75, text
    assert state_of(out)["status"] == "preempted"
    assert "Traceback" not in text
    run_module("train", *RUN, "--out", str(out))
    assert state_of(out) == {"status": "done", "step": 6}
    assert equal_runs(out, whole)


def test_stopped_in_the_middle_of_an_evaluation(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.set_num_threads(1)
    out = tmp_path / "run"

    def interrupted(model: Any, blocks: Iterator[Any], *more: Any) -> Any:
        def first_then_stop() -> Iterator[Any]:
            yield next(blocks)
            os.kill(os.getpid(), signal.SIGUSR1)
            yield from blocks

        return evaluate(model, first_then_stop(), *more)

    for step, epochs in ((3, 0), (6, 1)):  # the last one is that of the whole run
        with monkeypatch.context() as patched:
            patched.setattr(trainer, "evaluate", interrupted if step == 3 else second_time(interrupted, evaluate))
            assert train([*RUN, "--out", str(out)]) == 75
        assert f"SIGUSR1: saved at step {step} and stopped" in capsys.readouterr().err
        assert len(events(out, "epoch")) == epochs
    assert train([*RUN, "--out", str(out)]) == 0
    assert [e["val_top1_correct"] for e in events(out, "epoch")] == [
        e["val_top1_correct"] for e in events(whole, "epoch")
    ]
    assert equal_runs(out, whole)


def second_time(changed: Callable[..., Any], as_it_was: Callable[..., Any]) -> Callable[..., Any]:
    """`as_it_was` when called first, `changed` from then on."""
    calls = iter([as_it_was])
    return lambda *arguments: next(calls, changed)(*arguments)


def test_a_damaged_checkpoint_is_named_and_the_one_before_continues_to_the_same_bits(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], refuses: Refuses
) -> None:
    torch.set_num_threads(1)
    out = tmp_path / "run"
    arguments = [*RUN, "--out", str(out), "checkpoint.every_steps=2"]
    assert train([*arguments, "train.max_steps=5"]) == 0
    (out / "recipe.yaml").write_text((whole / "recipe.yaml").read_text())
    last = out / "checkpoints" / "last.pt"
    damaged = bytearray(last.read_bytes())
    damaged[len(damaged) // 2] ^= 16
    last.write_bytes(damaged)
    capsys.readouterr()
    assert train([*RUN, "--out", str(out)]) == 0
    told = capsys.readouterr()
    assert f"{last} is damaged: its content does not match its checksum" in told.err
    assert f"continuing from {out / 'checkpoints' / 'previous.pt'}, step 4" in told.out
    assert [e["step"] for e in events(out, "step")] == [2, 4, 6]
    assert (out / "checkpoints" / "discarded.pt").read_bytes() == damaged
    for name in ("last.pt", "previous.pt"):
        (out / "checkpoints" / name).write_bytes(damaged)
    told_both = refuses(train, *RUN, "--out", str(out))
    assert told_both.count("is damaged") == 2
