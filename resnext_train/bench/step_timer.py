"""Time the parts of a step, on a GPU by events in its stream, so that the host waits for nothing in between."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise

import torch

from resnext_train.bench.launch_count import REST
from resnext_train.compute.step_parts import Part, observed

PARTS: tuple[str, ...] = ("input", "color", "forward", "loss", "backward", "all_reduce", "optimizer", REST)
"""All parts of a step; the last is what lies in no other. The all-reduce has no time of its own here: it lies within
backward, and `bench_step` measures it by comparison."""


class StepTimer:
    """Adds up the seconds of each part while `observe`d. A part within another counts only as itself."""

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._part: str = REST
        self._marks: list[tuple[float | torch.cuda.Event, str]] = []
        """A point in time, and the part that begins there."""

    @contextmanager
    def observe(self) -> Iterator[None]:
        """Return the context in which all time counts, see `observed` in compute/step_parts.py."""
        self._mark()
        with observed(self._enter):
            yield
        self._mark()

    @contextmanager
    def _enter(self, name: Part) -> Iterator[None]:
        before, self._part = self._part, name
        self._mark()
        try:
            yield
        finally:
            self._part = before
            self._mark()

    def _mark(self) -> None:
        if self._on_gpu:
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self._marks.append((event, self._part))
        else:
            self._marks.append((time.perf_counter(), self._part))

    def take(self) -> dict[str, float]:
        """Wait for the device, and return the seconds of each part since the last call; together, all of the time."""
        marks, self._marks = self._marks, []
        if self._on_gpu:
            torch.cuda.synchronize()
        seconds = dict.fromkeys(PARTS, 0.0)
        for (begin, name), (end, _) in pairwise(marks):
            if isinstance(begin, float) and isinstance(end, float):
                seconds[name] += end - begin
            elif isinstance(begin, torch.cuda.Event) and isinstance(end, torch.cuda.Event):
                seconds[name] += begin.elapsed_time(end) / 1000
        return seconds


def timed_step(timer: StepTimer, steps: int, work: Callable[[], object]) -> dict[str, float]:
    """Call `work`, which takes a step, `steps` times, and return the mean seconds of each part of one."""
    with timer.observe():
        for _ in range(steps):
            work()
    return {name: seconds / steps for name, seconds in timer.take().items()}
