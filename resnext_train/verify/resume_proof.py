"""Prove that a recipe resumes exactly: the same steps twice, once undisturbed and once killed again and again."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from resnext_train.errors import FaultError
from resnext_train.verify.compare_runs import compare_runs, read_events
from resnext_train.verify.rank_processes import RankProcesses


@dataclass(frozen=True)
class Trial:
    """What is run twice: the arguments of `resnext train` without --out, the number of ranks, and of kills."""

    arguments: tuple[str, ...]
    steps: int
    kills: int
    processes: int
    seed: int


@dataclass
class Outcome:
    """The result of a trial."""

    whole_seconds: float
    steps: int = 0
    killed_after: list[int] = field(default_factory=list)
    """The last step that was logged before each kill."""
    restarts: list[float] = field(default_factory=list)
    """Seconds from each kill to the first step after it."""
    compared: int = 0
    """Tensors, plain values and logged events that both runs have."""
    differences: list[str] = field(default_factory=list)

    @property
    def restart(self) -> float | None:
        return median(self.restarts) if self.restarts else None


def run_trial(trial: Trial, folder: Path, print_line: Callable[[str], None]) -> Outcome:
    """Run `trial` in `folder`, and print a line for each run and each kill.

    Raises:
        FaultError: a run failed, or ended too early to be killed as often as asked.
    """
    whole, killed = folder / "whole", folder / "killed"
    began = time.monotonic()
    with RankProcesses(trial.arguments, trial.processes, whole) as ranks:
        ranks.wait()
    outcome = Outcome(time.monotonic() - began)
    print_line(f"undisturbed: {_last_step(whole)} steps in {outcome.whole_seconds:.1f} s, start included")
    chance = random.Random(trial.seed)
    targets = sorted(chance.sample(range(1, trial.steps), min(trial.kills, trial.steps - 1)))
    gone: float | None = None
    for target in [*targets, None]:
        with RankProcesses(trial.arguments, trial.processes, killed) as ranks:
            first, last = ranks.watch(target)
            if gone is not None and first is not None:
                outcome.restarts.append(first - gone)
            if target is None or ranks.ended():
                ranks.wait()
                break
            time.sleep(chance.uniform(0, 1.2) * ranks.step_seconds)  # the kill falls anywhere in or after a step
            if not ranks.kill():
                break
            gone = time.monotonic()
        outcome.killed_after.append(last)
        print_line(f"kill {len(outcome.killed_after)} of {len(targets)}: after step {last}")
    if len(outcome.killed_after) < len(targets):
        raise FaultError(
            f"the run ended after step {_last_step(killed)}, before it could be killed more than "
            f"{len(outcome.killed_after)} times, which proves too little; give it more steps (--steps, train.epochs), "
            "or fewer --kills"
        )
    outcome.compared, outcome.differences = compare_runs(whole, killed)
    outcome.steps = _last_step(whole)
    return outcome


def _last_step(run: Path) -> int:
    """Return the last step that a run has logged, or 0."""
    return max((e["step"] for e in read_events(run / "log.jsonl") if e["event"] == "step"), default=0)
