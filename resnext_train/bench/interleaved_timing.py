"""Time several things in turns, so that other load on the machine affects all of them alike."""

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


Runner = Callable[[int], Lap]
"""Makes the pass with a given number; the number determines images and crops."""


@dataclass(frozen=True)
class Rate:
    """Images per second."""

    median: float
    lowest: float
    highest: float
    rounds: tuple[float, ...]

    @staticmethod
    def of(laps: list[Lap]) -> Rate:
        rounds = tuple(lap.images / lap.seconds for lap in laps)
        return Rate(statistics.median(rounds), min(rounds), max(rounds), rounds)


def microseconds(laps: list[Lap], stage: str | None = None) -> float:
    """Return the median time per image, in one stage or in total."""
    return statistics.median(1e6 * (lap.stages[stage] if stage else lap.seconds) / lap.images for lap in laps)


def in_turns(
    runners: Mapping[Key, Runner], rounds: int, advance: Callable[[], object], discarded: int = 0
) -> dict[Key, list[Lap]]:
    """Run each runner once per round, for `discarded` warm-up rounds and `rounds` more; `advance` follows every lap."""
    laps: dict[Key, list[Lap]] = {key: [] for key in runners}
    for number in range(discarded + rounds):
        for key, run in runners.items():
            lap = run(number)
            if number >= discarded:
                laps[key].append(lap)
            advance()
    return laps


def time_of_items(items: Iterable[Any], skipped: int, count: int) -> float:
    """Return the seconds in which `count` of `items` arrive, after the first `skipped`."""
    arriving = iter(items)
    for _ in range(skipped):
        next(arriving)
    started = time.perf_counter()
    for _ in range(count):
        next(arriving)
    return time.perf_counter() - started


def pin(core: int | None) -> None:
    """Pin this process and those it starts from now on to a core; None: do nothing."""
    if core is not None:
        os.sched_setaffinity(0, {core})


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
    pin(core)
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
