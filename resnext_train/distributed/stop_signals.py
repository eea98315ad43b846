"""Signals that tell a run to stop: noted when they come, heeded at the next step boundary."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)
"""Sent by schedulers and torchrun (SIGTERM), by Ctrl-C (SIGINT), by Slurm before a time limit if asked to (SIGUSR1), by
a terminal that closes (SIGHUP)."""

_APART = 1.0
"""Seconds between two SIGINTs that are two: of one Ctrl-C, srun and torchrun may each hand one on."""

TORCHRUN = f"torchrun --standalone --nproc_per_node={{}} --signals-to-handle={','.join(s.name for s in STOPPING)}"
"""How torchrun is started on one host. Of a signal that it is not told to hand on it dies, and leaves orphans."""


class StopSignals:
    """While inside, notes the signals in STOPPING instead of dying of them; a second SIGINT ends the process."""

    def __init__(self, announce: bool) -> None:
        self.received = 0
        """Number of the last signal, or 0."""
        self._announce, self._interrupted = announce, -_APART
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():  # Python allows handlers nowhere else
            # nohup lets a run outlive its terminal by ignoring SIGHUP.
            heeded = [n for n in STOPPING if n != signal.SIGHUP or signal.getsignal(n) != signal.SIG_IGN]
            self._before = {number: signal.signal(number, self._note) for number in heeded}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        again = ""
        if number == signal.SIGINT:
            now = time.monotonic()
            if self.received == signal.SIGINT and now - self._interrupted > _APART:
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
            elif self.received == signal.SIGINT:
                return
            self._interrupted = now
            again = "; Ctrl-C again ends it at once, without saving"
        self.received = number
        if self._announce:  # not by print: the signal may have come in the middle of one
            text = f"\n{signal.Signals(number).name}: the run will be saved after this step and stop{again}\n"
            with contextlib.suppress(OSError):  # whoever reads this may have been interrupted as well
                os.write(2, text.encode())


@contextmanager
def signals_held_back() -> Iterator[None]:
    """Signals of STOPPING wait while inside; processes forked there are born with them waiting."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def outlive_stop_signals() -> None:
    """Called in loader processes: leave stopping to the training process, which needs its images until it has saved.

    Schedulers and torchrun send signals to all processes of a job. So this one ignores them, but for the SIGTERM by
    which its parent itself ends it. It does not outlive its parent: torch's loader processes look for that.
    """
    for number in STOPPING:
        if number != signal.SIGTERM:
            signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # not on macOS, where SIGTERM ends loader processes as it always did
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])  # it was when this process was forked
        threading.Thread(target=_leave_when_told_by, args=(os.getppid(),), daemon=True).start()
    else:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _leave_when_told_by(parent: int) -> None:
    while signal.sigwaitinfo([signal.SIGTERM]).si_pid != parent:
        pass
    os._exit(128 + signal.SIGTERM)
