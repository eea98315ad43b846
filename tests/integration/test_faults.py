"""What ends runs in real life: signals, dead and stuck processes, full disks, damage, steps that are not finite."""

from __future__ import annotations

import ctypes
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.commands import Refuses, train
from helpers.disks import fill, small_disk
from helpers.ranks import returned, start_command, start_ranks, train_ranks
from helpers.runs import LONG, RUN, SMALL, environment, events, module, start_run, state_of, wait_for_step, wait_until
from resnext_train.checkpoint import checkpoint_file
from resnext_train.checkpoint.checkpointer import Checkpointer, SaveOutcome
from resnext_train.data.image_batch import ImageBatch
from resnext_train.distributed.dist_context import DistContext
from resnext_train.distributed.loss_watch import LossWatch
from resnext_train.errors import InputError
from resnext_train.run_dir.run_lock import RunLock
from resnext_train.training.train_step import TrainStep

pytestmark = pytest.mark.slow

# Signals.


def children(pid: int) -> list[int]:
    """The processes that `pid` has started."""
    return [int(p) for task in Path(f"/proc/{pid}/task").iterdir() for p in (task / "children").read_text().split()]


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc, to find torchrun's processes")
def test_a_job_under_torchrun_is_stopped_and_saved(tmp_path: Path) -> None:
    out = tmp_path / "run"
    job = start_run(out, *LONG, torchrun=2)
    wait_for_step(out, ended=lambda: job.poll() is not None)
    ranks = children(job.pid)
    job.send_signal(signal.SIGUSR1)
    text, _ = job.communicate(timeout=25)  # torchrun kills after 30 s
    assert job.returncode == 1, "torchrun's code for any failure"
    state = state_of(out)
    assert (state["status"], state["signal"]) == ("preempted", "SIGUSR1")
    assert re.search(rf"SIGUSR1.* step {state['step']}\b", text)
    assert events(out, "preempted")[-1]["step"] == state["step"]
    saved = checkpoint_file.load(out / "checkpoints" / "last.pt")
    assert saved["progress"]["step"] == state["step"] == len(events(out, "step"))
    assert not [pid for pid in ranks if Path(f"/proc/{pid}").exists()], "orphans are left"


def second_step_takes_a_minute() -> None:
    take = TrainStep.__call__

    def slow(self: TrainStep, micro_batches: Any, before: int, *more: Any) -> None:
        if before == 1:
            print("the second step has begun", flush=True)
            time.sleep(60)
        take(self, micro_batches, before, *more)

    pytest.MonkeyPatch().setattr(TrainStep, "__call__", slow)


def test_a_second_interrupt_exits_at_once(tmp_path: Path) -> None:
    out, output = tmp_path / "run", tmp_path / "output"
    options = [*RUN, "--out", str(out), "log.every=1"]
    output.touch()
    (job,) = start_command(train, 1, *options, prepare=second_step_takes_a_minute, output=output)
    deadline = time.monotonic() + 60
    while "the second step has begun" not in output.read_text():  # before, a signal is heeded between two steps
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert job.pid
    for wait in (0, 1.2):  # the first two as of one Ctrl-C that came two ways
        os.kill(job.pid, signal.SIGINT)
        time.sleep(wait)
    assert job.is_alive()
    os.kill(job.pid, signal.SIGINT)
    job.join(10)
    assert job.exitcode == -signal.SIGINT, output.read_text()
    assert "Ctrl-C" in output.read_text()
    assert not list((out / "checkpoints").glob("*.pt"))


def test_a_console_that_is_gone_loses_nothing(tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = module("train", *RUN, *LONG, "data.workers=1", "--out", str(out))
    reader, writer = os.pipe()
    job = subprocess.Popen(command, stdout=writer, stderr=writer, env=environment())
    os.close(writer)
    wait_for_step(out, 2)
    os.close(reader)  # as Ctrl-C ends `tee` before the run has saved
    job.send_signal(signal.SIGINT)
    assert job.wait(30) == 75
    assert state_of(out)["status"] == "preempted"


# Dead, stuck and differing processes.


def survivors_say(ranks: list[ForkServerProcess], folder: Path, seconds: float) -> dict[int, str]:
    """What ranks say that are not killed, when they end in time."""
    deadline = time.monotonic() + seconds
    for rank in ranks:
        rank.join(max(0.0, deadline - time.monotonic()))
    alive = [r for r, rank in enumerate(ranks) if rank.exitcode is None]
    for rank in ranks:
        rank.kill()
    assert not alive, f"still waiting after {seconds} s"
    return {r: returned(folder, r, len(ranks)) for r, rank in enumerate(ranks) if rank.exitcode == 0}


@pytest.mark.parametrize(("killed", "told"), [(1, "process 1 of 3"), (0, "first host")])
def test_a_dead_process_ends_the_others_and_is_named(tmp_path: Path, killed: int, told: str) -> None:
    out = tmp_path / "run"
    ranks = start_ranks(train_ranks, 3, tmp_path, out, [*SMALL, *LONG])
    wait_for_step(out, 2)
    wait_until((out / "checkpoints" / "last.pt").exists)  # a thread writes it; a dead rank 0 writes no other
    ranks[killed].kill()
    said = survivors_say(ranks, tmp_path, 60)
    assert sorted(said) == sorted({0, 1, 2} - {killed})
    assert told in said[min(said)]
    # The store is rank 0's here: where rank 0 ends first, the last look-up of the other finds it gone.
    assert all(told in text or "first host" in text for text in said.values()), said
    assert state_of(out)["status"] == ("failed" if killed else "running")
    checkpoint_file.load(out / "checkpoints" / "last.pt")


def test_a_stuck_process_is_given_up_after_the_patience_of_the_recipe(tmp_path: Path) -> None:
    out = tmp_path / "run"
    ranks = start_ranks(train_ranks, 2, tmp_path, out, [*SMALL, *LONG, "train.patience=0.1"], patience=6.0)
    wait_for_step(out, 2)
    assert ranks[1].pid
    os.kill(ranks[1].pid, signal.SIGSTOP)
    ranks[0].join(60)
    os.kill(ranks[1].pid, signal.SIGKILL)
    assert "process 1 of 2" in returned(tmp_path, 0, 2)


def train_with_a_blocked_thread(context: DistContext, out: Path) -> dict[str, Any] | str:
    """On rank 0 the main thread waits outside Python from its third step on, as for a GPU with a full launch queue."""
    take_step = TrainStep.__call__

    def blocked(self: TrainStep, micro_batches: Iterator[ImageBatch], step: int, size: int, lr: float) -> None:
        if step == 2:
            (out / "blocked").touch()
            ctypes.CDLL(None).sleep(100)
        take_step(self, micro_batches, step, size, lr)

    with (out.with_suffix(".txt")).open("ab") as file:
        os.dup2(file.fileno(), 2)
    patch = pytest.MonkeyPatch()
    patch.setattr(LossWatch, "_GRACE", 1.0)
    if context.rank == 0:
        patch.setattr(TrainStep, "__call__", blocked)
    return train_ranks(context, out, [*SMALL, *LONG])


def test_a_dead_process_ends_one_that_is_blocked_outside_python(tmp_path: Path) -> None:
    out = tmp_path / "run"
    ranks = start_ranks(train_with_a_blocked_thread, 2, tmp_path, out)
    wait_for_step(out, 2)
    wait_until((out / "blocked").exists)
    ranks[1].kill()
    ranks[0].join(20)
    exit_code = ranks[0].exitcode
    ranks[0].kill()
    assert exit_code == 1
    told = out.with_suffix(".txt").read_text()
    assert re.search("^resnext: error: process 1 of 2 .* gone", told, re.MULTILINE), told
    assert state_of(out)["status"] == "failed"
    assert "process 1 of 2" in events(out, "failed")[0]["text"]
    assert checkpoint_file.load(out / "checkpoints" / "last.pt")["progress"]["step"] == 2


def train_with_a_faulty_rank(context: DistContext, out: Path) -> dict[str, Any] | str:
    """Rank 2 computes one weight wrongly in its third step, by one bit."""
    take_step = TrainStep.__call__

    def faulty(self: TrainStep, micro_batches: Iterator[ImageBatch], step: int, size: int, lr: float) -> None:
        take_step(self, micro_batches, step, size, lr)
        if step == 2:
            with torch.no_grad():
                list(self.model.parameters())[-1].view(torch.int32)[0] ^= 1

    if context.rank == 2:
        pytest.MonkeyPatch().setattr(TrainStep, "__call__", faulty)
    return train_ranks(context, out, [*SMALL, *LONG])


def test_processes_that_drift_apart_stop_the_run(tmp_path: Path) -> None:
    out = tmp_path / "run"
    said = survivors_say(start_ranks(train_with_a_faulty_rank, 3, tmp_path, out), tmp_path, 60)
    assert len(said) == 3
    assert all(re.search("step 3.*weights of process 2 of 3", text) for text in said.values()), said
    assert checkpoint_file.load(out / "checkpoints" / "last.pt")["progress"]["step"] == 2
    assert "weights of process 2" in events(out, "failed")[0]["text"]


# Disks.

LARGE = [*RUN, "model.width=1"]
"""Checkpoints of 25 MB."""


@pytest.mark.root
def test_a_disk_that_is_full_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Checkpoints fail, training goes on; when there is room again, so do they, and the log has no gap."""
    with small_disk(tmp_path / "disk", "115m") as disk:
        write = Checkpointer._write

        def meanwhile(self: Checkpointer, *arguments: Any) -> SaveOutcome:
            saved = write(self, *arguments)
            if saved.step == 1:
                fill(disk / "filler")
            if saved.step == 3 and not saved.epoch_is_open:
                assert saved.problem == "No space left on device"
                (disk / "filler").unlink()
            return saved

        monkeypatch.setattr(Checkpointer, "_write", meanwhile)
        out = disk / "run"
        assert (
            train([*LARGE, "--out", str(out), "log.every=1", "checkpoint.every_steps=1", "log.to=[tensorboard]"]) == 0
        )
        told = capsys.readouterr().err
        assert "the checkpoint of step 2 could not be written: No space left on device; the one before is kept" in told
        assert "1 of at most 3" in told
        assert [e["step"] for e in events(out, "step")] == [1, 2, 3, 4, 5, 6]
        assert [e["step"] for e in events(out, "checkpoint")] == [1, 4, 5, 6, 6]
        assert checkpoint_file.load(out / "checkpoints" / "last.pt")["progress"]["step"] == 6
        best = checkpoint_file.load(out / "checkpoints" / "best.pt")
        assert best["checkpointer"]["best"] == json.loads((out / "summary.json").read_text())["best"]
        assert not list(out.rglob("*.new"))


@pytest.mark.root
def test_a_disk_that_stays_full_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with small_disk(tmp_path / "disk", "115m") as disk:
        write = Checkpointer._write

        def meanwhile(self: Checkpointer, *arguments: Any) -> SaveOutcome:
            saved = write(self, *arguments)
            if saved.step == 2:
                fill(disk / "filler")
            return saved

        monkeypatch.setattr(Checkpointer, "_write", meanwhile)
        out = disk / "run"
        options = ["checkpoint.every_steps=1", "checkpoint.max_failures=1"]
        assert train([*LARGE, "--out", str(out), *LONG, *options]) == 1
        told = capsys.readouterr().err
        assert "Traceback" not in told
        assert "checkpoints" in told.splitlines()[-1]
        assert checkpoint_file.load(out / "checkpoints" / "last.pt")["progress"]["step"] == 2
        assert checkpoint_file.load(out / "checkpoints" / "previous.pt")["progress"]["step"] == 1


@pytest.mark.root
def test_a_disk_that_is_too_small_or_read_only_is_refused_before_the_first_step(
    tmp_path: Path, refuses: Refuses
) -> None:
    with small_disk(tmp_path / "disk", "50m") as disk:
        told = refuses(train, *LARGE, "--out", str(disk / "run"))
        assert re.search(r"\b5[0-2]\.\d MB free.* 24\.8 MB each .* 99\.\d MB;", told)
        assert not (disk / "run").exists()
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        assert "cannot be written: Read-only file system" in refuses(train, *LARGE, "--out", str(disk / "other"))


def test_a_run_folder_is_for_one_run_at_a_time(
    tmp_path: Path, refuses: Refuses, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RunLock, "_PATIENCE", 0.5)
    (tmp_path / "run").mkdir()
    code = "from pathlib import Path; from resnext_train.run_dir.run_paths import RunDir\n"
    code += f"c = RunDir(Path({str(tmp_path / 'run')!r})).lock(); print('held', flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout
        assert other.stdout.readline() == b"held\n"
        assert f"is in use by process {other.pid} on " in refuses(train, *RUN, "--out", str(tmp_path / "run"))
        other.kill()
    assert train([*RUN, "--out", str(tmp_path / "run"), "train.max_steps=1"]) == 0


# Damage.


def test_no_damaged_checkpoint_is_accepted(whole: Path, tmp_path: Path) -> None:
    data = (whole / "checkpoints" / "last.pt").read_bytes()
    chance, path = random.Random(0), tmp_path / "damaged.pt"
    spots = [0, 1, len(data) - 1, len(data) - 40, len(data) - 100] + [chance.randrange(len(data)) for _ in range(10)]
    for spot in spots:
        flipped = bytearray(data)
        flipped[spot] ^= 1 << chance.randrange(8)
        for damaged in (data[:spot], bytes(flipped)):
            path.write_bytes(damaged)
            with pytest.raises(InputError, match=r"damaged\.pt"):
                checkpoint_file.load(path)
    path.write_bytes(data)
    checkpoint_file.load(path)


# Steps that are not finite.
