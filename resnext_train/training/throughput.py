"""Measure how fast a run is, and how long it waits for its images."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable
from typing import Any, NamedTuple

from resnext_train.data.image_batch import ImageBatch, LoadReport
from resnext_train.data.slow_loader import NOTICEABLE, WINDOW, Workers, slow_stage
from resnext_train.data.sources.image_source import Storage


class Lap(NamedTuple):
    """Seconds, seconds waited for data, steps, images and the loader's reports between two log lines."""

    seconds: float
    waited: float
    steps: int
    images: int
    report: LoadReport


class Clock:
    """A stop watch that also counts steps, images and the time spent waiting for them."""

    def __init__(self) -> None:
        now = time.perf_counter()
        self._steps, self._images, self._waited, self._lap = 0, 0, 0.0, now
        self._reports: list[LoadReport] = []

    def timed(self, batches: Iterable[ImageBatch]) -> Generator[ImageBatch, None, None]:
        """Yield `batches` and count the time spent waiting for each."""
        micro_batches = iter(batches)
        while True:
            asked = time.perf_counter()
            micro_batch = next(micro_batches, None)
            self._waited += time.perf_counter() - asked
            if micro_batch is None:
                return
            self._reports.append(micro_batch.report)
            yield micro_batch

    def took(self, images: int) -> None:
        self._steps += 1
        self._images += images

    def peek(self) -> Lap:
        """Return the lap so far."""
        seconds = time.perf_counter() - self._lap
        return Lap(seconds, self._waited, self._steps, self._images, LoadReport.sum(self._reports))

    def lap(self) -> Lap:
        """Return the lap that ends now, and start the next."""
        result = self.peek()
        self._lap, self._waited, self._steps, self._images, self._reports = self._lap + result.seconds, 0.0, 0, 0, []
        return result


class DataWait:
    """Watches how long steps wait for their images."""

    def __init__(self, workers: Workers, storage: Storage) -> None:
        self._workers, self._storage = workers, storage
        self._reported: set[str] = set()
        self._laps: list[Lap] = []
        self._started = False

    def add(self, lap: Lap) -> dict[str, Any] | None:
        """Add a lap; return a slow_data event if the wait was long over WINDOW steps, at most one for each stage.

        The first lap of a run does not count: it waits for the loader processes to start.
        """
        if not self._started:
            self._started = True
            return None
        self._laps.append(lap)
        steps = sum(lap.steps for lap in self._laps)
        if steps < WINDOW:
            return None
        seconds = sum(lap.seconds for lap in self._laps)
        wait = sum(lap.waited for lap in self._laps) / seconds
        report = LoadReport.sum([lap.report for lap in self._laps])
        self._laps = []
        if wait <= NOTICEABLE:
            return None
        stage, remedy = slow_stage(report, seconds, self._workers, self._storage)
        if stage in self._reported:
            return None
        self._reported.add(stage)
        text = f"data-wait {100 * wait:.0f} % over {steps} steps: the loader is too slow, {remedy}"
        return {"data_wait": wait, "stage": stage, "text": text}
