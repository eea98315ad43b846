"""End this rank once another is lost, also where its main thread can neither notice that nor take a signal.

A main thread that has filled the launch queue of a GPU waits in the driver: it reaches no collective that fails, and
Python runs no handler of a signal.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from resnext_train.distributed.heartbeat import Heartbeat, first_host_lost, loss_of
from resnext_train.distributed.last_words import print_last_line
from resnext_train.distributed.process_identity import ProcessIdentity, is_gone
from resnext_train.errors import FaultError

T = TypeVar("T")
Record = Callable[[BaseException], None]


class LossWatch:
    """A thread that looks for lost ranks twice a second, and ends this process if its main thread does not.

    A rank is lost when its process is gone, though it has not said that it ends, or when it shows no sign of life for
    `patience` seconds. Until then one that is stopped, suspended or busy lives. Time is counted in looks, so
    that none passes while this process is suspended itself.
    """

    _EVERY = 0.5
    _GRACE = 20.0
    """Seconds that the main thread has to end by itself, in order and with the same sentence."""
    _LAST_LOOK = 4.0
    """Seconds that a look may still take when the thread is to end."""

    def __init__(self, heartbeat: Heartbeat, processes: Sequence[ProcessIdentity], patience: float) -> None:
        self._heartbeat, self._patience = heartbeat, patience
        self._processes = {rank: p for rank, p in enumerate(processes) if rank != heartbeat.rank}
        self._missing: set[int] = set()
        self._own_host = processes[heartbeat.rank].host
        self._silent = dict.fromkeys(self._processes, 0.0)
        self._pulses: list[bytes] | None = None
        self._looks_without_answer = 0
        self._record: Record | None = None
        self._thread = threading.Thread(target=self._run, name="loss watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread, and wait a moment for it: the main thread is on its way out."""
        self._heartbeat.main_thread_ends.set()
        self._thread.join(self._LAST_LOOK)

    @contextmanager
    def recorded_by(self, record: Record) -> Iterator[None]:
        """While inside, call `record` with the error before this process is ended."""
        self._record = record
        try:
            yield
        finally:
            self._record = None

    def _run(self) -> None:
        lost: set[int] = set()
        while not lost:
            if self._sleep():
                return
            lost = self._lost()
        self._heartbeat.found_dead(lost)
        for _ in range(round(self._GRACE / self._EVERY)):
            if self._sleep():
                return
        self._end()

    def _sleep(self) -> bool:
        """Wait for the next look; return whether there is none, because the main thread ends."""
        return self._heartbeat.main_thread_ends.wait(self._EVERY) or self._heartbeat.stopped

    def _lost(self) -> set[int]:
        """Look once, and return the ranks that are lost."""
        missing = {rank for rank, process in self._processes.items() if is_gone(process)}
        # Twice: a rank that has just ended may have said so, but the store may not have heard it.
        lost, self._missing = missing & self._missing, missing
        self._count_silence()
        lost |= {rank for rank in self._processes if self._seconds_silent(rank) >= self._patience}
        if lost:
            for rank in self._heartbeat.ended_in_order(lost):
                del self._processes[rank], self._silent[rank]
                lost.remove(rank)
        return lost

    def _count_silence(self) -> None:
        """Note for how long each rank has shown no sign of life.

        Where the store does not answer, there are no signs of any: those of this host are then lost only with their
        processes, because nothing but the launcher may be stopped.
        """
        pulses, before = self._heartbeat.pulses, self._pulses
        self._looks_without_answer += 1
        if pulses is not None and pulses is not before:
            for rank in self._processes:
                changed = before is None or pulses[rank] != before[rank]
                self._silent[rank] = 0.0 if changed else self._silent[rank] + self._looks_without_answer * self._EVERY
            self._pulses, self._looks_without_answer = pulses, 0

    def _seconds_silent(self, rank: int) -> float:
        elsewhere = self._processes[rank].host != self._own_host
        return self._silent[rank] + (self._looks_without_answer * self._EVERY if elsewhere else 0.0)

    def _end(self) -> None:
        """Say and record what happened, and end this process at once."""
        noticed = "it shows no sign of life"
        error = _within(_LOOK_UPS, lambda: loss_of(self._heartbeat, noticed)) or first_host_lost(noticed)
        if record := self._record:
            _within(max(self._patience, self._GRACE), lambda: record(error))
        if self._sleep():  # it has noticed after all
            return
        if isinstance(error, FaultError) and (self._heartbeat.rank == 0 or error.report_here):
            print_last_line(f"resnext: error: {error}")
        os._exit(error.exit_code if isinstance(error, FaultError) else 2)


_LOOK_UPS = 12.0
"""Seconds that all questions to the store may take, of which each has a limit of its own."""


def _within(seconds: float, work: Callable[[], T]) -> T | None:
    """Return what `work` returns, or None if it takes longer or fails."""
    results: list[T] = []
    thread = threading.Thread(target=lambda: results.append(work()), daemon=True)
    thread.start()
    thread.join(seconds)
    return results[0] if results else None
