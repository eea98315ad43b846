"""Signals that stop a run: noted when they arrive, acted on at the next step boundary."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import parent_process
from types import FrameType, TracebackType
from typing import Any

STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)
"""Sent by schedulers and launchers (SIGTERM), by Ctrl-C (SIGINT), by Slurm before a time limit (SIGUSR1), by a closing
terminal (SIGHUP)."""

APART = 1.0
"""Seconds between two SIGINTs that count as two: srun and a launcher may each forward one of the same Ctrl-C."""

SIGNALS_TO_HANDLE = ",".join(number.name for number in STOPPING)
"""For torchrun's option of this name: it dies of a signal that it does not forward, and leaves orphans."""


def handled_signals() -> list[signal.Signals]:
    """Return the signals of STOPPING but SIGHUP where it is ignored: nohup lets a run outlive its terminal so."""
    return [n for n in STOPPING if n != signal.SIGHUP or signal.getsignal(n) != signal.SIG_IGN]


class StopRequested(Exception):  # noqa: N818 (no error)
    """All ranks have agreed to stop, because one of them received a signal."""

    def __init__(self, number: int) -> None:
        self.signal_name = signal.Signals(number).name


class StopSignals:
    """While inside, the signals in STOPPING are noted instead of ending the process; a second SIGINT ends it."""

    def __init__(self, announce: bool) -> None:
        self.received = 0
        """Number of the last signal, or 0."""
        self._announce, self._interrupted = announce, -APART
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():  # Python allows handlers nowhere else
            self._console = os.dup(2)  # decoders of images are silenced by exchanging 2
            self._before = {number: signal.signal(number, self._note) for number in handled_signals()}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self._before:
            os.close(self._console)

    def _note(self, number: int, frame: FrameType | None) -> None:
        again = ""
        if number == signal.SIGINT:
            now = time.monotonic()
            if self.received == signal.SIGINT and now - self._interrupted > APART:
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
            elif self.received == signal.SIGINT:
                return
            self._interrupted = now
            again = "; Ctrl-C again ends it at once, without saving"
        self.received = number
        if self._announce:  # not by print: the signal may have come in the middle of one
            text = f"\n{signal.Signals(number).name}: the run will be saved after this step and stop{again}\n"
            with contextlib.suppress(OSError):  # the reader may have been interrupted as well
                os.write(self._console, text.encode())


@contextmanager
def ended_in_order() -> Iterator[None]:
    """While inside, SIGTERM and SIGHUP end the process by SystemExit, so that nothing half-written is left.

    Its code is 128 + the signal's number, as a shell reports one that kills. A second signal does that at once.
    """
    numbers = [n for n in handled_signals() if n in (signal.SIGTERM, signal.SIGHUP)]
    if threading.current_thread() is not threading.main_thread():
        numbers = []
    before = {number: signal.getsignal(number) for number in numbers}

    def end(number: int, frame: FrameType | None) -> None:
        for one in numbers:
            signal.signal(one, signal.SIG_DFL)
        raise SystemExit(128 + number)

    try:
        for number in numbers:
            signal.signal(number, end)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def signals_held_back() -> Iterator[None]:
    """Block the signals of STOPPING while inside; processes started there have them blocked."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def join_launcher(parent: int) -> None:
    """Take the signals that were held back when this rank was started, and SIGTERM when the process `parent` ends.

    The latter only on Linux, where it is sent when the thread that started this rank ends.
    """
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it has ended already
            os.kill(os.getpid(), signal.SIGTERM)


_PR_SET_PDEATHSIG = 1
"""Of linux/prctl.h."""


def outlive_stop_signals(trainer: int) -> None:
    """In a loader process: ignore signals that stop the run, because training needs its images until it has saved.

    Schedulers and launchers send signals to all processes of a job. This one ends only by a SIGTERM of the process
    `trainer`, or when that is gone. On macOS any SIGTERM ends it, and torch sees whether the trainer is gone.
    """
    for number in STOPPING:
        if number != signal.SIGTERM:
            signal.signal(number, signal.SIG_IGN)
    if not hasattr(signal, "sigtimedwait"):
        _end_on_sigterm()
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])  # it was blocked when this process was started
    try:
        threading.Thread(target=_exit_after, args=(trainer,), daemon=True).start()
    except RuntimeError:  # no more threads may be started; the trainer must be able to end this process
        _end_on_sigterm()
        raise


def _end_on_sigterm() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])


def _exit_after(trainer: int) -> None:
    """Exit on a SIGTERM of the trainer or once it is gone.

    torch looks for another parent, but that of a process of a fork server is the server, which lives as long as it.
    """
    parent = parent_process()
    while parent is None or parent.is_alive():
        received = signal.sigtimedwait([signal.SIGTERM], _EVERY)
        if received and received.si_pid == trainer:
            break
    os._exit(0)  # in order: another code would make torch raise an error in a trainer that is about to exit


_EVERY = 1.0
"""Seconds after which a loader process looks for its trainer again."""
