"""`--profile N`: where the time of some steps goes, by torch's profiler."""

from __future__ import annotations

import os
from typing import Any

from resnext_train.run_dir.console import print_progress, print_warning
from resnext_train.run_dir.run_paths import RunDir
from resnext_train.run_dir.sink import Sink

WARM_UP_STEPS, _DISCARDED = 5, 2
"""Steps before those that are profiled; in so many of them the profiler runs already, for it is slow to begin."""

_ROWS = 12
"""Operators in the printed table."""


class StepProfiler(Sink):
    """A sink that profiles `steps` steps of this rank after the run's first five: writes a trace, and prints a table.

    It only watches: the run's bits are those of a run without it.
    """

    def __init__(self, folder: RunDir, steps: int) -> None:
        self._folder, self._steps, self._ticks = folder, steps, 0
        self._profile: Any = None
        self._done = False

    def tick(self, epoch: int, step_in_epoch: int) -> None:
        """Count a finished step."""
        if self._done:
            return
        self._ticks += 1
        if self._ticks == WARM_UP_STEPS - _DISCARDED:
            self._start()
        elif self._profile is not None:
            self._profile.step()
            if self._ticks == WARM_UP_STEPS + self._steps:
                self._stop()

    def _start(self) -> None:
        import torch
        from torch.profiler import ProfilerActivity, profile, schedule

        os.environ.setdefault("KINETO_LOG_LEVEL", "9")  # its own lines on stderr, which no run wants
        activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * torch.cuda.is_available()
        plan = schedule(wait=0, warmup=_DISCARDED, active=self._steps, repeat=1)
        self._profile = profile(activities=activities, schedule=plan, on_trace_ready=self._report, acc_events=True)
        self._profile.start()

    def _report(self, profile: Any) -> None:
        trace = self._folder.trace
        half = trace.with_name(f".{os.getpid()}.{trace.name}")  # torch compresses by the ending
        try:
            profile.export_chrome_trace(os.fspath(half))
            half.replace(trace)
            place = f"trace of {self._steps} steps: {trace}"
        except OSError as error:
            half.unlink(missing_ok=True)
            place = ""
            print_warning(f"--profile: {trace} cannot be written: {error.strerror}")
        for line in (*table(profile.key_averages(), self._steps), *filter(None, [place])):
            print_progress(line)

    def _stop(self) -> None:
        self._profile.stop()
        self._profile, self._done = None, True

    def close(self) -> None:
        """End a profile whose steps did not all come."""
        if not self._done and self._ticks:
            if self._profile is not None:
                self._profile.on_trace_ready = None
                self._stop()
            self._done = True
            needed = WARM_UP_STEPS + self._steps
            print_warning(f"--profile: the run ended after {self._ticks} of {needed} steps, too early for a trace")


def table(averages: Any, steps: int) -> list[str]:
    """Return the operators with the most time of their own, in milliseconds a step: on the GPU, or else on the CPU."""
    rows = [(e.key, e.count, e.self_cpu_time_total, getattr(e, "self_device_time_total", 0)) for e in averages]
    rows = [row for row in rows if not row[0].startswith("ProfilerStep")]
    by_gpu = any(row[3] for row in rows)
    rows.sort(key=lambda row: row[3] if by_gpu else row[2], reverse=True)
    lines = [f"{'self ms a step:':44s}{'CPU':>10s}{'GPU' if by_gpu else '':>10s}{'calls':>10s}"]
    for key, count, cpu, gpu in rows[:_ROWS]:
        on_gpu = f"{gpu / 1000 / steps:.3f}" if by_gpu else ""
        lines.append(f"{key[:43]:44s}{cpu / 1000 / steps:10.3f}{on_gpu:>10s}{count / steps:10.0f}")
    return lines
