"""Proof that a recipe resumes exactly: the same steps twice, once undisturbed and once killed again and again."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from resnext_train.errors import FaultError

_TIMES = {"images_per_s", "data_wait", "seconds", "epoch_began"}
"""What the clock says differs from run to run, in logged events and in a checkpoint's progress."""


@dataclass(frozen=True)
class Trial:
    """What is run twice: arguments of resnext-train without --out, on how many processes, and how many kills."""

    arguments: tuple[str, ...]
    steps: int
    kills: int
    processes: int
    seed: int


@dataclass
class Outcome:
    """What a trial came to."""

    whole_seconds: float
    steps: int = 0
    """Steps of each run."""
    killed_after: list[int] = field(default_factory=list)
    """The last step that was logged before each kill."""
    restarts: list[float] = field(default_factory=list)
    """Seconds from each kill to the first step after it."""
    compared: int = 0
    """Tensors, plain values and logged events that both runs have."""
    differences: list[str] = field(default_factory=list)
    """What differs, in words."""

    @property
    def restart(self) -> float | None:
        """The median of `restarts`."""
        return median(self.restarts) if self.restarts else None


def run_trial(trial: Trial, folder: Path, tell: Callable[[str], None]) -> Outcome:
    """Run `trial` in `folder`, with a line to `tell` for each run and each kill.

    Raises:
        FaultError: a run ended by itself, other than by finishing.
    """
    whole, killed = folder / "whole", folder / "killed"
    began = time.monotonic()
    with _Ranks(trial, whole) as ranks:
        ranks.wait()
    outcome = Outcome(time.monotonic() - began)
    tell(f"undisturbed: {_last_step(whole)} steps in {outcome.whole_seconds:.1f} s, start included")
    chance = random.Random(trial.seed)
    targets = sorted(chance.sample(range(1, trial.steps), min(trial.kills, trial.steps - 1)))
    gone: float | None = None
    for target in [*targets, None]:
        with _Ranks(trial, killed) as ranks:
            first, last = ranks.watch(target)
            if gone is not None and first is not None:
                outcome.restarts.append(first - gone)
            if target is None or ranks.ended():
                ranks.wait()
                break
            time.sleep(chance.uniform(0, 1.2) * ranks.step_seconds)  # in the middle of whatever comes then
            if not ranks.kill():
                break
            gone = time.monotonic()
        outcome.killed_after.append(last)
        tell(f"kill {len(outcome.killed_after)} of {len(targets)}: after step {last}")
    if len(outcome.killed_after) < len(targets):
        raise FaultError(
            f"the run ended after step {_last_step(killed)}, before it could be killed more than "
            f"{len(outcome.killed_after)} times, which proves too little; give it more steps (--steps, train.epochs), "
            "or fewer --kills"
        )
    compare_runs(whole, killed, outcome)
    outcome.steps = _last_step(whole)
    return outcome


def _last_step(run: Path) -> int:
    """The last step that a run has logged, or 0."""
    return max((e["step"] for e in _events(run / "log.jsonl") if e["event"] == "step"), default=0)


class _Ranks:
    """The processes of one run, started as torchrun would but so that all can be killed at once."""

    def __init__(self, trial: Trial, out: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self._log = out / "log.jsonl"
        self._before = self._log.stat().st_ino if self._log.is_file() else None
        self._told = out.with_suffix(".txt").open("a+b")
        self.step_seconds = 0.1
        world = trial.processes
        command = [sys.executable, "-m", "resnext_train", "train", *trial.arguments, "--out", str(out)]
        places = [
            {"RANK": r, "LOCAL_RANK": r, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world, "MASTER_PORT": port}
            for r in range(world)
        ]
        # Nothing of a job that this may be running in.
        foreign = re.compile(r"(LOCAL_|GROUP_|ROLE_)?(RANK|WORLD)|MASTER_|TORCHELASTIC")
        env = {name: value for name, value in os.environ.items() if not foreign.match(name)}
        if world > 1:
            env = {"MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1", **env}
        self._processes = [
            subprocess.Popen(
                command,
                env={**env, **({k: str(v) for k, v in place.items()} if world > 1 else {})},
                stdout=self._told,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a group of its own, with its loader processes
            )
            for place in places
        ]

    def __enter__(self) -> _Ranks:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._told.close()

    def ended(self) -> bool:
        """Whether any process has ended."""
        return any(p.poll() is not None for p in self._processes)

    def kill(self) -> bool:
        """SIGKILL all processes and their loader processes; whether all were still running."""
        running = not self.ended()
        for process in self._processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
        for process in self._processes:
            process.wait()
        return running

    def wait(self) -> None:
        """Wait for the end of the run.

        Raises:
            FaultError: it failed.
        """
        codes = [p.wait() for p in self._processes]
        if any(codes):
            self._told.seek(0)
            lines = self._told.read().decode(errors="replace").strip().splitlines()
            raise FaultError(f"a run ended with exit code {max(codes, key=abs)}: {lines[-1] if lines else 'no word'}")

    def watch(self, target: int | None) -> tuple[float | None, int]:
        """Wait until step `target` is logged, or any end; when the first step was logged, and the last one logged."""
        first: float | None = None
        last, began = 0, 0
        while True:
            ended = self.ended()
            steps = self._steps()
            if steps:
                now = time.monotonic()
                if first is None:
                    first, began = now, steps[-1]
                last = steps[-1]
                if last > began:
                    self.step_seconds = (now - first) / (last - began)
            if ended or (target is not None and last >= target):
                return first, last
            time.sleep(0.002)

    def _steps(self) -> list[int]:
        """The steps in the log, once this run has taken it over: that makes it a new file."""
        try:
            if self._log.stat().st_ino == self._before:
                return []
            return [e["step"] for e in _events(self._log) if e["event"] == "step"]
        except FileNotFoundError:
            return []


def _events(log: Path) -> Iterator[dict[str, Any]]:
    """The whole lines of a log."""
    for line in log.read_text(encoding="utf-8").splitlines(keepends=True):
        if line.endswith("\n"):
            yield json.loads(line)


def compare_runs(whole: Path, killed: Path, outcome: Outcome) -> None:
    """Note in `outcome` how much was compared and what differs: all of last.pt, and the logged steps and epochs."""
    import torch

    one, two = (
        dict(_leaves(torch.load(run / "checkpoints" / "last.pt", map_location="cpu", weights_only=True)))
        for run in (whole, killed)
    )
    for run, leaves in ((whole, one), (killed, two)):
        logged = [e for e in _events(run / "log.jsonl") if e["event"] in ("step", "epoch")]
        for event in logged:
            name = f"log.jsonl, {event['event']} {event['step']}"
            if name in leaves:
                outcome.differences.append(f"{name} is logged twice in {run.name}")
            leaves[name] = {k: v for k, v in event.items() if k not in _TIMES}
    for name in sorted(one.keys() | two.keys()):
        outcome.compared += 1
        if name not in one or name not in two:
            outcome.differences.append(f"{name} is missing in one run")
        elif not _same(one[name], two[name]):
            outcome.differences.append(f"{name} differs")


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """All that a checkpoint holds, by its place, but for what the clock says."""
    if isinstance(value, (dict, list)):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            if key not in _TIMES:
                yield from _leaves(inner, f"{name}/{key}" if name else str(key))
    else:
        yield name, value


def _same(one: Any, two: Any) -> bool:
    """Whether two values have the same bits, not-a-number included."""
    import torch

    if isinstance(one, torch.Tensor) and isinstance(two, torch.Tensor):
        alike = (one.dtype, one.shape) == (two.dtype, two.shape)
        return alike and one.contiguous().numpy().tobytes() == two.contiguous().numpy().tobytes()
    return repr(one) == repr(two)
