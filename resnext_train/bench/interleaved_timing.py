"""Time several things in turns, so that other load on the machine affects all of them alike."""

from __future__ import annotations

import multiprocessing
import os
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing import forkserver
from typing import NamedTuple, TypedDict, TypeVar

import torch
from tqdm import tqdm

Key = TypeVar("Key")


class Lap(NamedTuple):
    """One pass over some images; `stages` in seconds."""

    images: int
    seconds: float
    stages: Mapping[str, float]


Runner = Callable[[int], Lap]
"""Makes the pass with a given number; the number determines images and crops."""


class Rate(TypedDict):
    """Images per second."""

    median: float
    lowest: float
    highest: float
    rounds: list[float]


def rate_of(laps: list[Lap]) -> Rate:
    rounds = [lap.images / lap.seconds for lap in laps]
    return {"median": statistics.median(rounds), "lowest": min(rounds), "highest": max(rounds), "rounds": rounds}


def microseconds(laps: list[Lap], stage: str | None = None) -> float:
    """Return the median time per image, in one stage or in total."""
    return statistics.median(1e6 * (lap.stages[stage] if stage else lap.seconds) / lap.images for lap in laps)


@contextmanager
def progress(total: int, what: str, unit: str) -> Iterator[Callable[[int], object]]:
    """Show a progress bar on stderr; if that is no terminal, print a line every 30 s."""
    terminal = sys.stderr.isatty()
    with tqdm(total=total, desc=what, unit=unit, mininterval=0.2 if terminal else 30.0, leave=not terminal) as bar:
        yield bar.update


def in_turns(what: str, runners: Mapping[Key, Runner], rounds: int, discarded: int = 0) -> dict[Key, list[Lap]]:
    """Run each runner once per round, for `discarded` warm-up rounds and `rounds` more; `what` names the progress."""
    laps: dict[Key, list[Lap]] = {key: [] for key in runners}
    with progress(len(runners) * (discarded + rounds), what, "pass") as advance:
        for number in range(discarded + rounds):
            for key, run in runners.items():
                laps[key].append(run(number))
                advance(1)
    return {key: of_key[discarded:] for key, of_key in laps.items()}


@contextmanager
def on_one_core() -> Iterator[int | None]:
    """Pin this process to one of its cores; yields the core, or None if the system cannot pin."""
    if not hasattr(os, "sched_setaffinity"):
        yield None
        return
    if multiprocessing.get_start_method() == "forkserver":
        forkserver.ensure_running()  # started below, the server and all its later children would stay pinned
    before = os.sched_getaffinity(0)
    core = max(before)  # the first cores run most of the system's own work
    os.sched_setaffinity(0, {core})
    try:
        yield core
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def one_thread() -> Iterator[None]:
    """Limit torch to one thread, as in a loader process."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
