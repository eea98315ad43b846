"""A run that ends early and continues is, to the last bit, the undisturbed run on as many processes."""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
import torch

from helpers.commands import train
from helpers.interrupted import signal_in_step
from helpers.ranks import exit_codes, run_command, start_command
from helpers.runs import (
    EVERYTHING,
    RUN,
    check_curves,
    comparable,
    equal_runs,
    events,
    start_run,
    state_of,
    wait_for_step,
)
from helpers.shared import made_once
from resnext_train.checkpoint import checkpoint_file
from resnext_train.checkpoint.checkpointer import Checkpointer
from resnext_train.distributed.rank import this_rank
from resnext_train.evaluation.evaluate import evaluate
from resnext_train.training import validation

pytestmark = pytest.mark.slow
OVERRIDES = ["log.every=1", "train.epochs=3", "schedule.name=step"]  # a cosine would end with max_steps
OPTIONS = [*RUN, *OVERRIDES]
EVERY_STEP = "checkpoint.every_steps=1"


class End:
    """How a run ends early."""

    options: tuple[str, ...] = ()
    """Overrides of the run that ends so."""

    def prepare(self) -> None:
        """Arrange it, on each rank."""

    def check(self, out: Path, codes: list[int | None]) -> None:
        """See that the run has ended so."""

    def resume(self, out: Path) -> list[str]:
        """Options that the next run needs to continue this one."""
        return []


@dataclass(frozen=True)
class Killed(End):
    """By SIGKILL on all ranks, in a step, while the checkpoint of the step before may be half written."""

    step: int

    def prepare(self) -> None:
        signal_in_step(self.step, signal.SIGKILL, None)

    def check(self, out: Path, codes: list[int | None]) -> None:
        assert codes == [-signal.SIGKILL] * len(codes)
        assert len(events(out, "step")) == self.step - 1


@dataclass(frozen=True)
class Stopped(End):
    """By a signal to one rank in a step."""

    step: int
    signal: signal.Signals
    rank: int = 0

    def prepare(self) -> None:
        signal_in_step(self.step, self.signal, self.rank)

    def check(self, out: Path, codes: list[int | None]) -> None:
        assert codes == [75] * len(codes)
        assert state_of(out) == {"status": "preempted", "step": self.step, "signal": self.signal.name}


@dataclass(frozen=True)
class StoppedInEvaluation(End):
    """By a signal to rank 0 after the first batch of the evaluation of an epoch."""

    epoch: int

    def prepare(self) -> None:
        calls = itertools.count(1)

        def interrupted(model: Any, batches: Iterator[Any], *more: Any) -> Any:
            def first_then_stop() -> Iterator[Any]:
                yield next(batches)
                os.kill(os.getpid(), signal.SIGUSR1)
                yield from batches

            stops = next(calls) == self.epoch and this_rank().rank == 0
            return evaluate(model, first_then_stop() if stops else batches, *more)

        pytest.MonkeyPatch().setattr(validation, "evaluate", interrupted)

    def check(self, out: Path, codes: list[int | None]) -> None:
        assert codes == [75] * len(codes)
        assert state_of(out)["step"] == 3 * self.epoch
        assert len(events(out, "epoch")) == self.epoch - 1
        saves = [e["step"] for e in events(out, "checkpoint")]
        assert saves.count(3 * self.epoch) == 1, "that before the evaluation is enough"


@dataclass(frozen=True)
class KilledAtEvaluation(End):
    """By SIGKILL on all ranks: before the evaluation of an epoch, during it, after it, or as its last.pt is renamed."""

    epoch: int
    place: Literal["before", "during", "after", "rename"]

    def prepare(self) -> None:
        patch = pytest.MonkeyPatch()
        save, rename, place, last = Checkpointer.save, Path.replace, self.place, 3 * self.epoch

        def killed_here(here: str, step: int) -> None:
            if (here, step) == (place, last):
                os.kill(os.getpid(), signal.SIGKILL)

        def saved_at_once(self: Checkpointer, state: dict[str, Any], *more: Any) -> None:
            step, is_open = state["progress"]["step"], state["progress"]["epoch_is_open"]
            if not is_open:
                killed_here("after", step)
            save(self, state, *more)
            self.log_outcome(wait=True)
            if is_open:
                killed_here("before", step)

        def evaluated(members: Any, batches: Iterator[Any], scoring: Any, context: Any) -> Any:
            def first_then_killed() -> Iterator[Any]:
                yield next(batches)
                killed_here("during", 3 * next(calls))
                yield from batches

            return evaluate(members, first_then_killed(), scoring, context)

        def renamed(self: Path, target: Path) -> Path:
            if target.name == "last.pt" and not torch.load(self, weights_only=True)["progress"]["epoch_is_open"]:
                killed_here("rename", torch.load(self, weights_only=True)["progress"]["step"])
            return rename(self, target)

        calls = itertools.count(1)
        patch.setattr(Checkpointer, "save", saved_at_once)
        patch.setattr(validation, "evaluate", evaluated)
        patch.setattr(Path, "replace", renamed)

    def check(self, out: Path, codes: list[int | None]) -> None:
        assert codes[0] == -signal.SIGKILL
        progress = checkpoint_file.load(out / "checkpoints" / "last.pt")["progress"]
        assert (progress["step"], progress["epoch_is_open"]) == (3 * self.epoch, True)
        assert len(events(out, "epoch")) == self.epoch - (self.place in ("before", "during"))


@dataclass(frozen=True)
class Damaged(Stopped):
    """Stopped, and then one bit of last.pt changes: the checkpoint before it is what continues."""

    def check(self, out: Path, codes: list[int | None]) -> None:
        super().check(out, codes)
        last = out / "checkpoints" / "last.pt"
        content = bytearray(last.read_bytes())
        content[len(content) // 2] ^= 16
        last.write_bytes(content)
        assert checkpoint_file.load(out / "checkpoints" / "previous.pt")["progress"]["step"] < self.step


@dataclass(frozen=True)
class Cut(End):
    """By train.max_steps."""

    step: int

    @property
    def options(self) -> tuple[str, ...]:  # type: ignore[override]
        return (f"train.max_steps={self.step}",)

    def check(self, out: Path, codes: list[int | None]) -> None:
        assert codes == [0] * len(codes)
        assert state_of(out) == {"status": "done", "step": self.step}

    def resume(self, out: Path) -> list[str]:
        return ["--resume", str(out / "checkpoints" / "last.pt")]


TERM, INT, USR1, HUP = signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP

CASES = {
    "1-killed-between-its-epochs": (1, [Killed(5)], ["log.to=[tensorboard]"]),
    "1-killed-several-times": (1, [Killed(2), Killed(5), Killed(8)], [EVERY_STEP, *EVERYTHING]),
    "2-killed-several-times": (2, [Killed(2), Killed(5), Killed(8)], [EVERY_STEP, *EVERYTHING]),
    "4-cut-stopped-by-one-and-killed": (4, [Cut(2), Stopped(4, USR1, rank=2), Killed(8)], [EVERY_STEP]),
    "1-stopped-twice": (1, [Stopped(1, HUP), Stopped(5, INT)], []),
    "2-stopped-by-each": (2, [Stopped(2, USR1), Stopped(7, TERM, rank=1)], []),
    "1-stopped-in-evaluations": (1, [StoppedInEvaluation(1), StoppedInEvaluation(3)], []),
    "2-stopped-in-an-evaluation": (2, [StoppedInEvaluation(2)], []),
    "1-killed-around-evaluations": (
        1,
        [KilledAtEvaluation(1, "before"), KilledAtEvaluation(2, "during"), KilledAtEvaluation(3, "after")],
        ["log.to=[tensorboard]", *EVERYTHING],
    ),
    "2-killed-in-an-evaluation": (2, [KilledAtEvaluation(1, "during")], ["checkpoint.every_epochs=9"]),
    "1-killed-before-the-second-rename": (1, [KilledAtEvaluation(1, "rename")], ["log.to=[tensorboard]"]),
    "1-stopped-and-damaged": (1, [Damaged(5, TERM)], ["checkpoint.every_steps=2"]),
    "1-cut-in-mid-epoch": (1, [Cut(4)], []),
}
"""The number of processes, the ends, one after another, and overrides of all runs."""


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int, list[str]], Path]:
    """An undisturbed run on a number of processes, with the overrides of EVERYTHING or without them."""

    def run(processes: int, options: list[str]) -> Path:
        more = EVERYTHING if EVERYTHING[0] in options else []
        arguments = [*OPTIONS, *more, "--out"]
        name = f"undisturbed{processes}{'_everything' if more else ''}"
        return made_once(tmp_path_factory, name, lambda out: run_command(train, processes, *arguments, str(out)))

    return run


@pytest.mark.parametrize(("processes", "ends", "options"), CASES.values(), ids=CASES)
def test_it_continues_to_the_same_bits(
    processes: int, ends: list[End], options: list[str], undisturbed: Callable[[int, list[str]], Path], tmp_path: Path
) -> None:
    out, resume = tmp_path / "run", list[str]()
    arguments = [*OPTIONS, *options, "--out", str(out)]
    for end in ends:
        ranks = start_command(train, processes, *arguments, *resume, *end.options, prepare=end.prepare)
        end.check(out, exit_codes(ranks))
        resume = end.resume(out)
    run_command(train, processes, *arguments, *resume)
    assert events(out, "start")[-1]["step"] > 0, "it has continued, not started anew"
    whole = undisturbed(processes, options)
    assert comparable(out, "step") == comparable(whole, "step")
    assert [e for e in comparable(out, "epoch") if e["step"] % 3 == 0] == comparable(whole, "epoch")
    assert equal_runs(out, whole)
    assert state_of(out) == {"status": "done", "step": 9}
    if "log.to=[tensorboard]" in options:
        check_curves(out)


def test_two_processes_are_bit_identical_to_one_with_everything_on(
    undisturbed: Callable[[int, list[str]], Path],
) -> None:
    one, two = (undisturbed(processes, EVERYTHING) for processes in (1, 2))
    assert equal_runs(one, two)
    assert comparable(one, "step", "epoch") == comparable(two, "step", "epoch")


def test_a_process_with_loader_processes_exits_75_in_time_and_continues(tmp_path: Path) -> None:
    """A command as a user starts it, with a signal from outside at any time."""
    out, whole, long = tmp_path / "run", tmp_path / "whole", "train.epochs=12"
    job = start_run(out, *OVERRIDES, long, "data.workers=2")
    wait_for_step(out)
    job.send_signal(signal.SIGTERM)
    text, _ = job.communicate(timeout=30)
    assert job.returncode == 75, text
    assert "Traceback" not in text
    assert state_of(out)["status"] == "preempted"
    for folder in (out, whole):
        run_command(train, 1, *OPTIONS, long, "--out", str(folder))
    assert state_of(out) == {"status": "done", "step": 36}
    assert equal_runs(out, whole)
