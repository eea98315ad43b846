"""Loader processes that are stopped, killed or suspended, or whose trainer is, by each way to start them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from helpers.harmed_loader import PATIENCE
from helpers.runs import environment
from resnext_train.data.loader_workers import START

TESTS = Path(__file__).parents[1]
pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="forks elsewhere are not safe")]


class Trainer:
    """`helpers.harmed_loader`, in a process group of its own."""

    def __init__(self, method: str) -> None:
        path = os.pathsep.join(filter(None, (str(TESTS), os.environ.get("PYTHONPATH"))))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "helpers.harmed_loader"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**environment(), "PYTHONPATH": path, START: method},
            start_new_session=True,
        )
        self.method, self.pid, self._errors = method, self._process.pid, ""

    def line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def batch(self) -> tuple[int, int]:
        """The number of the next batch, and the loader process that made it."""
        line = self.line()
        number, loader = line.split() if line.count(" ") == 1 else (line, "")
        return int(number), int(loader)

    def reason(self) -> str:
        """Why there are no more batches, of which some may be on the way."""
        return next(line for line in iter(self.line, "") if not line[0].isdecimal())

    def left(self) -> list[str]:
        """The names of the group's processes that have not ended."""
        found = []
        for file in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):
                name, _, rest = file.read_text().rpartition(")")
                state, _, group = rest.split()[:3]
                if int(group) == self.pid and state != "Z":
                    found.append(name)
        return found

    def end(self) -> str:
        """Kill the trainer alone; what it and the others have said on stderr, which ends with the last of them."""
        self._process.kill()
        self._errors += self._process.communicate(timeout=30)[1]
        return self._errors


@pytest.fixture(params=["fork", "forkserver", "spawn"])
def trainer(request: pytest.FixtureRequest) -> Iterator[Trainer]:
    started = Trainer(request.param)
    try:
        yield started
    finally:
        with suppress(ProcessLookupError):
            os.killpg(started.pid, signal.SIGKILL)
        started.end()


def test_loader_processes_outlive_signals_but_not_their_trainer(trainer: Trainer) -> None:
    number, loader = trainer.batch()
    for stop in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP):
        os.killpg(trainer.pid, stop)  # as a scheduler sends them, to the helpers of multiprocessing, too
    assert [trainer.batch() for _ in range(8)] == [(n, loader) for n in range(number + 1, number + 9)]

    if trainer.method != "spawn":  # each of its loader processes takes seconds, and is a child as a forked one is
        os.kill(loader, signal.SIGSTOP)
        assert "gave no images for 1 s" in trainer.reason()
        number, loader = trainer.batch()
        assert number == 0

    os.kill(loader, signal.SIGKILL)
    assert "a loader process was killed" in trainer.reason()
    number, loader = trainer.batch()
    os.killpg(trainer.pid, signal.SIGSTOP)  # as by Ctrl-Z or a sleeping laptop, for longer than the loader waits
    time.sleep(PATIENCE + 0.5)
    os.killpg(trainer.pid, signal.SIGCONT)
    assert [trainer.batch()[1] for _ in range(8)] == [loader] * 8

    assert trainer.end() == ""
    deadline = time.monotonic() + 10
    while left := trainer.left():
        assert time.monotonic() < deadline, left
        time.sleep(0.05)
