"""The processes of one run, which can all be killed at once."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from resnext_train.errors import FaultError
from resnext_train.verify.compare_runs import read_events


class RankProcesses:
    """The ranks of one run, started as by a launcher, but so that all can be killed at once."""

    def __init__(self, arguments: Sequence[str], world_size: int, out: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self._log = out / "log.jsonl"
        self._before = self._log.stat().st_ino if self._log.is_file() else None
        self._output = out.with_suffix(".txt").open("a+b")
        self.step_seconds = 0.1
        command = [sys.executable, "-m", "resnext_train", "train", *arguments, "--out", str(out)]
        places = [
            {"RANK": r, "LOCAL_RANK": r, "WORLD_SIZE": world_size, "LOCAL_WORLD_SIZE": world_size, "MASTER_PORT": port}
            for r in range(world_size)
        ]
        # Leave out the variables of a job that this process may be part of.
        foreign = re.compile(r"(LOCAL_|GROUP_|ROLE_)?(RANK|WORLD)|MASTER_|TORCHELASTIC|RESNEXT_TRAIN_|SLURM_")
        env = {name: value for name, value in os.environ.items() if not foreign.match(name)}
        if world_size > 1:
            env = {"MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1", **env}
        self._processes = [
            subprocess.Popen(
                command,
                env={**env, **({k: str(v) for k, v in place.items()} if world_size > 1 else {})},
                stdout=self._output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a group of its own, with its loader processes
            )
            for place in places
        ]

    def __enter__(self) -> RankProcesses:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._output.close()

    def ended(self) -> bool:
        return any(p.poll() is not None for p in self._processes)

    def kill(self) -> bool:
        """SIGKILL all ranks and their loader processes; return whether all were still running."""
        running = not self.ended()
        for process in self._processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
        for process in self._processes:
            process.wait()
        return running

    def kill_rank(self, rank: int) -> None:
        """SIGKILL one rank and its loader processes; the others go on."""
        os.killpg(self._processes[rank].pid, signal.SIGKILL)
        self._processes[rank].wait()

    def codes_within(self, seconds: float) -> list[int | None]:
        """Return the exit codes by rank as soon as all have ended; None for those that run after `seconds`."""
        deadline = time.monotonic() + seconds
        while any(p.poll() is None for p in self._processes) and time.monotonic() < deadline:
            time.sleep(0.05)
        return [p.poll() for p in self._processes]

    def output(self) -> str:
        """Return what all ranks have printed so far."""
        self._output.seek(0)
        return self._output.read().decode(errors="replace")

    def wait(self) -> None:
        """Wait for the end of the run.

        Raises:
            FaultError: it failed.
        """
        codes = [p.wait() for p in self._processes]
        if any(codes):
            lines = self.output().strip().splitlines()
            raise FaultError(f"a run ended with exit code {max(codes, key=abs)}: {lines[-1] if lines else 'no output'}")

    def watch(self, target: int | None) -> tuple[float | None, int]:
        """Wait until step `target` is logged or a rank ends; return when a step was first logged, and the last step."""
        first: float | None = None
        last, began = 0, 0
        while True:
            ended = self.ended()
            steps = self._steps()
            if steps:
                now = time.monotonic()
                if first is None:
                    first, began = now, steps[-1]
                last = steps[-1]
                if last > began:
                    self.step_seconds = (now - first) / (last - began)
            if ended or (target is not None and last >= target):
                return first, last
            time.sleep(0.002)

    def _steps(self) -> list[int]:
        """Return the steps in the log, once this run has replaced the file of the run before."""
        try:
            if self._log.stat().st_ino == self._before:
                return []
            return [e["step"] for e in read_events(self._log) if e["event"] == "step"]
        except FileNotFoundError:
            return []
