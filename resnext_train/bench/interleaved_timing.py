"""Measuring in turns: what is compared sees the same moments of a machine that others may be using, too."""

from __future__ import annotations

import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import forkserver
from typing import Any, NamedTuple, TypeVar

import torch

Key = TypeVar("Key")


class Lap(NamedTuple):
    """One pass over some images."""

    images: int
    seconds: float
    stages: Mapping[str, float]
    """Seconds of it that were spent in each stage, where that is known."""


Runner = Callable[[int], Lap]
"""Makes the pass of a given number; passes of the same number see the same images and crops."""


@dataclass(frozen=True)
class Rate:
    """Images per second."""

    median: float
    lowest: float
    highest: float
    rounds: tuple[float, ...]

    @staticmethod
    def of(laps: list[Lap]) -> Rate:
        """The rate of one thing in all rounds."""
        rounds = tuple(lap.images / lap.seconds for lap in laps)
        return Rate(statistics.median(rounds), min(rounds), max(rounds), rounds)


def microseconds(laps: list[Lap], stage: str | None = None) -> float:
    """Median time per image, in one stage or in all."""
    return statistics.median(1e6 * (lap.stages[stage] if stage else lap.seconds) / lap.images for lap in laps)


def in_turns(
    runners: Mapping[Key, Runner], rounds: int, advance: Callable[[], object], discarded: int = 0
) -> dict[Key, list[Lap]]:
    """A lap of each runner, and again, `rounds` times, after as many rounds to warm up as are `discarded`.

    `advance` is called after every lap.
    """
    laps: dict[Key, list[Lap]] = {key: [] for key in runners}
    for number in range(discarded + rounds):
        for key, run in runners.items():
            lap = run(number)
            if number >= discarded:
                laps[key].append(lap)
            advance()
    return laps


def time_of_items(items: Iterable[Any], skipped: int, count: int) -> float:
    """Seconds that `count` of `items` take to arrive, after the first `skipped`."""
    arriving = iter(items)
    for _ in range(skipped):
        next(arriving)
    started = time.perf_counter()
    for _ in range(count):
        next(arriving)
    return time.perf_counter() - started


def pin(core: int | None) -> None:
    """Keep this process, and those it starts from now on, on one core; None: leave it where it is."""
    if core is not None:
        os.sched_setaffinity(0, {core})


@contextmanager
def on_one_core() -> Iterator[int | None]:
    """Keep this process on one of its cores for a while; yields which, or None where the system cannot do that."""
    if not hasattr(os, "sched_setaffinity"):
        yield None
        return
    if multiprocessing.get_start_method() == "forkserver":
        forkserver.ensure_running()  # or it would be started below, and all that it starts later stay on that core
    before = os.sched_getaffinity(0)
    core = max(before)  # the first ones are busiest with the system's own work
    pin(core)
    try:
        yield core
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute with one thread for a while, as in a loader process."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
