"""Show that this rank lives, and name the ranks that do not. `loss_watch.py` looks for them all the time."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

from resnext_train.errors import FaultError, ReportedInputError

_LEFT = "resnext_train/left"
"""Key of the store, before the rank."""

_ENDED = "resnext_train/ended"
"""Key of the store, before a rank that has ended as it should."""

_DEAD = "resnext_train/dead"
"""Key of the store for the ranks that were found dead first."""

_BEATS_PER_LOOK = 4
"""Heartbeats after which a rank reads those of all."""

_FAILURES_IN_A_ROW, _NEW_CONNECTION = 6, 3
"""Heartbeats that fail before this rank gives them up, and before it tries them by a new connection. A connection may
fail once, and others take a rank without heartbeats for lost."""


class Heartbeat:
    """A thread that writes to the launcher's store twice a second, to show that this rank lives."""

    _EVERY = 0.5
    _SILENCE = 4.0
    """Seconds without a heartbeat after which a rank is dead, where others have lost one; and that a look-up takes."""

    def __init__(self, store: Any, rank: int, world_size: int) -> None:
        # Connections of their own: the thread's must not wait for others, and a store that is gone takes no new ones.
        self._store, self._lookup = store.clone(), store.clone()
        self._lookup.set_timeout(timedelta(seconds=self._SILENCE))
        self.rank, self.world_size = rank, world_size
        # A launcher that starts the ranks again, as when a host returns, gives them the same store.
        self._store.delete_key(f"{_LEFT}/{rank}")
        self._store.delete_key(f"{_ENDED}/{rank}")
        if rank == 0:
            self._store.delete_key(_DEAD)
        self.pulses: list[bytes] | None = None
        """The last heartbeats of all ranks that were read."""
        self._end = threading.Event()
        self.main_thread_ends = threading.Event()
        """Set once the main thread is on its way out by an error: nobody needs to end this rank then."""
        self._beat(0)
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread, and wait for it unless the store keeps it waiting."""
        self._end.set()
        self._thread.join(self._SILENCE)

    @property
    def stopped(self) -> bool:
        return self._end.is_set()

    def _run(self) -> None:
        count = failures = 0
        while not self._end.wait(self._EVERY):
            count += 1
            try:
                self._beat(count)
                if count % _BEATS_PER_LOOK == 0:
                    self._read_pulses()
                failures = 0
            except RuntimeError:
                failures += 1
                if failures == _FAILURES_IN_A_ROW:  # the store's host is gone, and nobody could read this
                    return
                if failures == _NEW_CONNECTION:
                    with suppress(RuntimeError):
                        self._store = self._lookup.clone()

    def _beat(self, count: int) -> None:
        self._store.set(self._key(self.rank), str(count))

    def _read_pulses(self) -> None:
        keys = [self._key(rank) for rank in range(self.world_size)]
        if self._store.check(keys):  # else `multi_get` would wait for a rank that has not begun
            self.pulses = self._store.multi_get(keys)

    @staticmethod
    def _key(rank: int) -> str:
        return f"resnext_train/pulse/{rank}"

    def end_in_order(self) -> None:
        """Tell the other ranks that this one ends as it should. Rank 0 waits a moment until all of them do.

        The store may be rank 0's: the others then see that it is gone, and could not look up why.
        """
        with suppress(RuntimeError):  # the store's host is gone
            self._lookup.set(f"{_ENDED}/{self.rank}", "")
            deadline = time.monotonic() + self._SILENCE
            keys = [f"{_ENDED}/{rank}" for rank in range(self.world_size)]
            while self.rank == 0 and time.monotonic() < deadline and not self.main_thread_ends.is_set():
                if self._lookup.check(keys):
                    break
                time.sleep(0.02)

    def ended_in_order(self, ranks: Iterable[int]) -> set[int]:
        """Return those of `ranks` that have ended as they should, as far as the store can say."""
        with suppress(RuntimeError):
            return {rank for rank in ranks if self._lookup.check([f"{_ENDED}/{rank}"])}
        return set()

    def found_dead(self, ranks: Collection[int]) -> None:
        """Let all ranks name these, unless others were found before."""
        with suppress(RuntimeError):
            self._lookup.compare_set(_DEAD, "", ",".join(map(str, sorted(ranks))))

    def leave(self, reason: str) -> bool:
        """Tell the other ranks that this one ends the run, and says why; return False if another says the same."""
        if self.reason_of_leaving() == reason:
            return False
        self._lookup.set(f"{_LEFT}/{self.rank}", reason)
        return True

    def reason_of_leaving(self) -> str | None:
        """Return why another rank has ended the run; None if no rank has said so.

        Raises:
            RuntimeError: the store cannot be reached.
        """
        keys = [f"{_LEFT}/{rank}" for rank in range(self.world_size) if self._lookup.check([f"{_LEFT}/{rank}"])]
        return self._lookup.get(keys[0]).decode() if keys else None

    def dead_ranks(self) -> list[int]:
        """Return the ranks without a heartbeat for some seconds.

        Raises:
            RuntimeError: the store cannot be reached.
        """
        keys = [self._key(rank) for rank in range(self.world_size)]
        before = self._lookup.multi_get(keys)
        dead = set(range(self.world_size)) - {self.rank}
        deadline = time.monotonic() + self._SILENCE
        while dead and time.monotonic() < deadline:
            time.sleep(self._EVERY / 2)
            now = self._lookup.multi_get(keys)
            dead -= {rank for rank in dead if now[rank] != before[rank]}
        return sorted(dead)

    def first_dead_ranks(self) -> list[int]:
        """Return the ranks that the first rank to look for dead ones has found.

        A rank that looks seconds later would also miss the ones that have ended because of the first loss.

        Raises:
            RuntimeError: the store cannot be reached.
        """
        if not self._lookup.check([_DEAD]):
            dead = ",".join(map(str, self.dead_ranks()))
            self._lookup.compare_set(_DEAD, "", dead or "none")
        first = self._lookup.get(_DEAD).decode()
        return [] if first == "none" else [int(rank) for rank in first.split(",")]


@contextmanager
def dead_ranks_named(heartbeat: Heartbeat | None) -> Iterator[None]:
    """Turn the error of a collective that lost a rank into one that names the rank.

    `heartbeat` is None on a single rank, which has nobody to lose.

    Raises:
        FaultError: a rank, or the connection to it, is gone.
        ReportedInputError: the rank has said that it ends the run.
    """
    try:
        yield
    except BaseException as error:
        if heartbeat is None:
            raise
        heartbeat.main_thread_ends.set()
        if not isinstance(error, RuntimeError) or not _LOST.search(str(error)):
            raise
        raise loss_of(heartbeat, str(error).partition("\n")[0]) from error


_LOST = re.compile(
    r"closed by peer|reset by peer|Connection refused|Broken pipe|Timed out|timed out|timeout|NCCL|"
    r"remote process|Socket|unhandled system error"
)
"""Messages of Gloo and NCCL when they lose a rank."""


def loss_of(heartbeat: Heartbeat, reason: str) -> FaultError | ReportedInputError:
    """Return the error that ends this rank where others are gone; `reason` is how that was noticed."""
    world_size = heartbeat.world_size
    try:
        if said := heartbeat.reason_of_leaving():
            return ReportedInputError(said)
        dead = heartbeat.first_dead_ranks()
    except RuntimeError:
        return first_host_lost(reason)
    if not dead:
        return FaultError(f"the processes lost each other, though all {world_size} live ({reason}); {_GO_ON}")
    names = f"process {dead[0]}" if len(dead) == 1 else f"processes {' and '.join(map(str, dead))}"
    reporter = min(set(range(world_size)) - set(dead))
    return FaultError(
        f"{names} of {world_size} (counted from 0) {'is' if len(dead) == 1 else 'are'} gone, killed or stuck; {_GO_ON}",
        report_here=heartbeat.rank == reporter,
    )


def first_host_lost(reason: str) -> FaultError:
    """Return the error that ends this rank where the launcher's store does not answer."""
    return FaultError(f"the first host, or the connection to it, is gone ({reason}); {_GO_ON}", report_here=True)


_GO_ON = "give the same command again; it continues a run from its last checkpoint"
