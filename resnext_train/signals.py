"""Signals that tell a run to stop: noted when they come, heeded at the next step boundary."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any

STOPPING = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
"""Sent by schedulers and torchrun (SIGTERM), by Slurm before a time limit if asked to (SIGUSR1), by Ctrl-C (SIGINT)."""


class StopSignals:
    """While inside, notes the signals in STOPPING instead of dying of them; a second SIGINT ends the process."""

    def __init__(self, speaks: bool) -> None:
        self.received = 0
        """Number of the last signal, or 0."""
        self._speaks = speaks
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():  # Python allows handlers nowhere else
            self._before = {number: signal.signal(number, self._note) for number in STOPPING}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        again = ""
        if number == signal.SIGINT:
            signal.signal(number, signal.SIG_DFL)
            again = "; Ctrl-C again ends it at once, without saving"
        if self._speaks:  # not by print: the signal may have come in the middle of one
            os.write(
                2, f"\n{signal.Signals(number).name}: the run will be saved after this step and stop{again}\n".encode()
            )


def outlive_stop_signals() -> None:
    """Called in loader processes: leave stopping to the training process, which needs its images until it has saved.

    Schedulers and torchrun send signals to all processes of a job. So this one ignores them, but for the SIGTERM by
    which its parent itself ends it. It does not outlive its parent: torch's loader processes look for that.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # not on macOS, where SIGTERM ends loader processes as it always did
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        threading.Thread(target=_leave_when_told_by, args=(os.getppid(),), daemon=True).start()
    else:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _leave_when_told_by(parent: int) -> None:
    while signal.sigwaitinfo([signal.SIGTERM]).si_pid != parent:
        pass
    os._exit(128 + signal.SIGTERM)
