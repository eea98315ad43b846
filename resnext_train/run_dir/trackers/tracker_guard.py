"""Keep what goes wrong in a tracker away from the run: failures, and calls that take long or never return."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from queue import Full, Queue
from threading import Event as Flag
from threading import Thread
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resnext_train.run_dir.sink import Event, Pixels, Sink
from resnext_train.run_dir.trackers.secrets import without_secrets

OPEN_SECONDS = 10.0
"""How long a run waits at its start for a tracker in a thread to be ready; that one goes on in any case."""
CLOSE_SECONDS = 10.0
"""How long a run waits at its end for what a tracker in a thread has still to write."""
QUEUED_CALLS = 1000
"""Most events that wait for a tracker in a thread. At a log line each 20 steps that is half a day of ImageNet."""

_LONGEST_REASON = 400

_Call = Callable[[Sink], None]


class TrackerGuard(Sink):
    """A tracker that is left out from its first failure on. `take_faults` says what became of it."""

    def __init__(self, name: str, takes_arrays: bool, build: Callable[[], Sink]) -> None:
        """Open the tracker by `build`."""
        self.name, self.takes_arrays = name, takes_arrays
        self._build = build
        self._sink: Sink | None = None
        self._failed = False
        self._faults: list[str] = []
        self._hand(_nothing)

    def take_faults(self) -> list[str]:
        """Return a sentence for each thing that went wrong since the last call."""
        faults, self._faults = self._faults, []
        return faults

    def write(self, event: Event) -> None:
        self._hand(lambda sink: sink.write(event))

    def picture(self, name: str, pixels: Pixels, step: int) -> None:
        self._hand(lambda sink: sink.picture(name, pixels, step))

    def histogram(self, name: str, values: NDArray[np.floating[Any]], step: int) -> None:
        self._hand(lambda sink: sink.histogram(name, values, step))

    def close(self) -> None:
        self._hand(_close)

    def _hand(self, call: _Call) -> None:
        self._run(call)

    def _run(self, call: _Call) -> None:
        if self._failed:
            return
        try:
            if self._sink is None:
                self._sink = self._build()
            call(self._sink)
        except Exception as error:  # whatever a library raises, a run goes on
            self._failed = True
            reason = without_secrets(" ".join(f"{type(error).__name__}: {error}".split()))[:_LONGEST_REASON]
            self._faults.append(f"{self.name} has failed, and gets no more of this run, which goes on: {reason}")
            if self._sink is not None and call is not _close:
                with suppress(Exception):  # the failure is told; what was written may be complete by this
                    self._sink.close()


def _nothing(sink: Sink) -> None:
    """Open a tracker without writing to it."""


def _close(sink: Sink) -> None:
    sink.close()


class BackgroundTracker(TrackerGuard):
    """A tracker in a thread of its own, so that no call of it holds up the run. What its queue has no room for is lost.

    The thread is a daemon: one that hangs does not keep the process alive.
    """

    def __init__(
        self, name: str, takes_arrays: bool, build: Callable[[], Sink], abandon: Callable[[], None] | None = None
    ) -> None:
        """Open the tracker by `build` in the thread; wait until that is done, but not for long.

        `abandon` is called where it does not end.
        """
        self._abandon = abandon
        self._queue: Queue[_Call | None] = Queue(QUEUED_CALLS)
        self._lost, self._opened = 0, Flag()
        self._thread = Thread(target=self._work, name=f"tracker {name}", daemon=True)
        self._thread.start()
        super().__init__(name, takes_arrays, build)
        # Loader processes are forked soon: of a module that is being imported then, an import in them never ends.
        self._opened.wait(OPEN_SECONDS)

    def _hand(self, call: _Call) -> None:
        try:
            self._queue.put_nowait(call)
        except Full:
            self._lost += 1
            if self._lost == 1:
                self._faults.append(f"{self.name} does not keep up, and lacks events from here on")

    def _work(self) -> None:
        while (call := self._queue.get()) is not None:
            self._run(call)
            self._opened.set()

    def close(self) -> None:
        """Wait until all is written and the tracker is closed, for CLOSE_SECONDS at most."""
        deadline = time.monotonic() + CLOSE_SECONDS
        for last in (_close, None):
            with suppress(Full):  # then the thread hangs, as is told below
                self._queue.put(last, timeout=max(0.0, deadline - time.monotonic()))
        self._thread.join(max(0.0, deadline - time.monotonic()))
        if self._thread.is_alive():
            text = f"{self.name} did not take the last events within {CLOSE_SECONDS:.0f} s, and may lack them"
            self._faults.append(text)
            if self._abandon is not None:
                with suppress(Exception):  # a library of another version; then the process ends later
                    self._abandon()
        if self._lost:
            self._faults.append(f"{self.name} lacks {self._lost} events, for which its queue had no room")
