"""Run a sweep: one run after another, each a process of its own, skipped where it is done. Imports no torch."""

from __future__ import annotations

import ctypes
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import FrameType, TracebackType
from typing import Any

from resnext_train.distributed.own_command import own_command
from resnext_train.distributed.stop_signals import handled_signals
from resnext_train.errors import FaultError, Preempted
from resnext_train.report.run_record import EVALUATION
from resnext_train.run_dir.run_paths import RunDir
from resnext_train.sweep.sweep_plan import PlannedRun, is_done

SAVED, INTERRUPTED = 75, 130
"""Exit codes of a run that a signal stopped: it has saved, or not."""

_FAULTS = 1, 2
"""Those of a run that ended by itself, whatever signal has come."""


@dataclass
class SweepResult:
    """What became of the runs of a sweep."""

    skipped: int = 0
    """Runs that were done before."""
    failed: list[str] = field(default_factory=list)
    """A sentence for each run that failed."""


def run_sweep(runs: Sequence[PlannedRun], say: Callable[[str], None]) -> SweepResult:
    """Carry out all runs, one after another, and evaluate each one's last checkpoint; `say` prints a line.

    A run that is done is skipped, one that was cut off is continued, and one that fails does not keep the others from
    running. Signals that stop a run stop the sweep, once the run has saved.

    Raises:
        Preempted: a signal stopped the sweep; the same command continues it.
        KeyboardInterrupt: a second Ctrl-C ended a run without saving.
        FaultError: a signal stopped the sweep, and the run could not save.
    """
    result = SweepResult()
    with _Children() as children:
        for number, run in enumerate(runs, 1):
            place = f"[{number}/{len(runs)}] {run.folder.path}"
            if is_done(run.folder):
                say(f"{place}: done")
                result.skipped += 1
            else:
                say(f"{place}: {run.command()}")
                if failure := children.run(run.arguments()):
                    result.failed.append(f"{run.folder.path}: {failure}; to try again: {run.command()}")
                    say(f"{place}: {failure}")
                    continue
            if not is_evaluated(run.folder) and (failure := children.run(evaluation(run), may_save=False)):
                result.failed.append(f"{run.folder.path}: its evaluation: {failure}")
                say(f"{place}: its evaluation: {failure}")
    return result


def is_evaluated(folder: RunDir) -> bool:
    """Return whether the run's last checkpoint was evaluated: the result is younger, or the checkpoint is gone."""
    result = folder.path / EVALUATION / "result.json"
    try:
        made = result.stat().st_mtime
        return not folder.last.exists() or made >= folder.last.stat().st_mtime
    except OSError:
        return False


def evaluation(run: PlannedRun) -> list[str]:
    """Return the arguments of `resnext` that evaluate the last checkpoint of a run into its folder.

    The images may be elsewhere than when the run ended.
    """
    procs = ["--procs", str(run.procs)] if run.procs > 1 else []
    data = [word for word in run.overrides if word.startswith(("data.root=", "data.workers="))]
    return ["eval", "--ckpt", str(run.folder.last), "--out", str(run.folder.path / EVALUATION), *procs, *data]


class _Children:
    """Runs commands of `resnext` one at a time; while inside, signals that stop a run are passed on to them."""

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None
        self._received = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> _Children:
        self._before = {number: signal.signal(number, self._pass_on) for number in handled_signals()}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        self._received = number
        if self._child is not None:
            with suppress(ProcessLookupError):
                self._child.send_signal(number)

    def run(self, arguments: Sequence[str], may_save: bool = True) -> str | None:
        """Run `resnext ARGUMENTS`, and return how it failed; None where it did not.

        Raises:
            Preempted, KeyboardInterrupt, FaultError: see `run_sweep`.
        """
        code = self._received and SAVED
        if not code:
            # In a session of its own: a terminal's Ctrl-C comes once, by this process.
            command = own_command(arguments)
            self._child = subprocess.Popen(command, start_new_session=True, preexec_fn=_end_with_parent)
            if self._received:  # between the question and the start
                self._child.send_signal(self._received)
            code = self._child.wait()
            self._child = None
        interrupted = code in (INTERRUPTED, -signal.SIGINT)
        if self._received and not (may_save and (interrupted or code in _FAULTS)):
            raise Preempted(f"{signal.Signals(self._received).name}: stopped; the same command continues the sweep")
        if interrupted:
            raise KeyboardInterrupt
        if self._received:
            name = signal.Signals(self._received).name
            raise FaultError(f"{name}: stopped, but the run ended with exit code {code}; its last line says why")
        if code == SAVED:  # someone sent the run a signal, and not the sweep
            raise Preempted("the run was stopped by a signal, and saved; the same command continues the sweep")
        if code < 0:
            return f"ended by {signal.Signals(-code).name}"
        return f"exit code {code}" if code else None


def _end_with_parent() -> None:
    """Have this process get SIGTERM, at which a run saves, when the sweep ends without a word; only on Linux."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG of linux/prctl.h
