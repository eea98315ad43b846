"""Time several things in turns, so that other load on the machine affects all of them alike."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple, TypedDict, TypeVar

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
    """Show a progress bar on stderr; if that is no terminal, print a line every 30 s; nothing if there is no work."""
    terminal = sys.stderr.isatty()
    interval = 0.2 if terminal else 30.0
    with tqdm(total=total, desc=what, unit=unit, mininterval=interval, leave=not terminal, disable=not total) as bar:
        yield bar.update


def in_turns(what: str, runners: Mapping[Key, Runner], rounds: int, shown: bool = True) -> dict[Key, list[Lap]]:
    """Run each runner once per round, after one that does not count; `what` names the progress, if it is shown."""
    laps: dict[Key, list[Lap]] = {key: [] for key in runners}
    with progress(len(runners) * (1 + rounds) * shown, what, "pass") as advance:
        for number in range(1 + rounds):
            for key, run in runners.items():
                laps[key].append(run(number))
                advance(1)
    return {key: of_key[1:] for key, of_key in laps.items()}
