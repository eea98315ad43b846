"""`--procs N`: start N ranks on this host by torch's elastic agent, pass on its signals, and end as the run ended."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from types import FrameType
from typing import Any

from torch.distributed.elastic.agent.server.api import RunResult, WorkerGroup, WorkerSpec
from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
from torch.distributed.elastic.multiprocessing.api import SubprocessContext
from torch.distributed.elastic.rendezvous import RendezvousParameters
from torch.distributed.elastic.rendezvous.registry import get_rendezvous_handler

from resnext_train.distributed.environment import environment_set
from resnext_train.distributed.own_command import own_command
from resnext_train.distributed.rank import LAUNCHER, THREADS, threads_are_chosen
from resnext_train.distributed.stop_signals import APART, handled_signals, signals_held_back
from resnext_train.distributed.usable_cores import usable_cores
from resnext_train.errors import FaultError

_OWN_END = 30
"""Seconds that the first rank has to find out by itself that another has ended, and to say so."""

_LAST_MOMENT = 3
"""Seconds from a second SIGINT to SIGKILL."""

_MARGIN = 60
"""Seconds that it has after a SIGTERM, beyond those that ranks wait for each other."""


def launch(arguments: Sequence[str], procs: int, patience: float) -> int:
    """Run `python -m resnext_train ARGUMENTS` as `procs` ranks on this host, and return the run's exit code.

    Signals that stop a run are passed on to all ranks; a second SIGINT ends them. The ranks are in sessions of their
    own, which a terminal's Ctrl-C does not reach. On Linux they get SIGTERM when this process ends, however it does.
    Each has its part of the cores for its threads, unless OMP_NUM_THREADS is set.
    `patience` is how long ranks wait for each other, in seconds, and so the longest that a save may take.

    Raises:
        FaultError: all ranks were ended by signals, and could not say why.
        KeyboardInterrupt: by SIGINT.
    """
    agent = _Agent(_spec(arguments, procs), patience)
    before = logging.root.manager.disable
    if "LOGLEVEL" not in os.environ:  # which torch reads
        logging.disable(logging.CRITICAL)  # the agent's own account of what the ranks have said
    try:
        with _SignalQueue() as signals:
            run = _Run(agent)
            while run.is_alive():
                run.join(0.1)
                for number in signals.take() if agent.has_ranks else ():
                    agent.send(number)
                agent.kill_the_interrupted()
        return exit_code(run.result(), agent.interrupted)
    finally:
        logging.disable(before)


def _spec(arguments: Sequence[str], procs: int) -> WorkerSpec:
    rendezvous = RendezvousParameters(
        backend="c10d",
        endpoint="127.0.0.1:0",  # a free port
        run_id=str(uuid.uuid4()),
        min_nodes=1,
        max_nodes=1,
        local_addr="127.0.0.1",
    )
    return WorkerSpec(
        role="rank",
        local_world_size=procs,
        entrypoint=sys.executable,
        # torch fills in ${local_rank} and the like.
        args=tuple(own_command([argument.replace("$", "$$") for argument in arguments])[1:]),
        rdzv_handler=get_rendezvous_handler(rendezvous),
        max_restarts=0,
        monitor_interval=0.1,
        local_addr="127.0.0.1",
    )


class _Agent(LocalElasticAgent):
    """torch's agent, which ends all ranks once one has failed; here the first has the time to finish its save."""

    def __init__(self, spec: WorkerSpec, patience: float) -> None:
        super().__init__(spec, DefaultLogsSpecs(log_dir=os.devnull))
        self._save_timeout = int(patience) + _MARGIN
        self._interrupts = 0
        self._kill_at = math.inf

    @property
    def interrupted(self) -> bool:
        """Whether a second SIGINT has come."""
        return self._kill_at < math.inf

    @property
    def has_ranks(self) -> bool:
        return self._pcontext is not None

    def send(self, number: int) -> None:
        """Send a signal to all ranks that have not ended."""
        if number == signal.SIGINT:
            self._interrupts += 1
            if self._interrupts == 2:  # it ends ranks that save; those that have saved, or are stuck, get a moment
                self._kill_at = time.monotonic() + _LAST_MOMENT
        for handler in self._ranks().values():
            handler.proc.send_signal(number)

    def kill_the_interrupted(self) -> None:
        """Kill the ranks, with their loader processes, that are there some seconds after a second SIGINT."""
        if time.monotonic() < self._kill_at:
            return
        for handler in self._ranks().values():
            if handler.proc.poll() is None:
                with contextlib.suppress(ProcessLookupError):  # the agent's thread has just found it ended
                    os.killpg(handler.proc.pid, signal.SIGKILL)

    def _first_rank_ends(self, timeout: float) -> bool:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._ranks()[0].proc.wait(timeout)
            return True
        return False

    def close_rendezvous(self) -> None:
        """Tell the store that no rank will come any more."""
        self._rdzv_handler.shutdown()

    def _ranks(self) -> Mapping[int, Any]:
        assert isinstance(self._pcontext, SubprocessContext)
        return self._pcontext.subprocess_handlers

    def _start_workers(self, worker_group: WorkerGroup) -> dict[int, Any]:
        variables = {LAUNCHER: str(os.getpid())}
        if not threads_are_chosen():  # each rank corrects it, should it be bound to some of the cores
            threads = max(1, usable_cores() // worker_group.spec.local_world_size)
            variables |= {"OMP_NUM_THREADS": str(threads), THREADS: "auto"}
        # A signal that comes now waits until a rank can take it.
        with environment_set(variables), signals_held_back():
            pids: dict[int, Any] = super()._start_workers(worker_group)
        assert self._pcontext is not None
        close = self._pcontext.close

        def close_after_first_rank(death_sig: signal.Signals | None = None, timeout: int = 30) -> None:
            # torch would send SIGTERM at once, and SIGKILL after 30 s, whatever its constructor is given.
            if not self._first_rank_ends(_OWN_END):
                self.send(signal.SIGTERM)
                self._first_rank_ends(self._save_timeout)
            close(death_sig, timeout)

        self._pcontext.close = close_after_first_rank  # type: ignore[method-assign]
        return pids


class _Run(threading.Thread):
    """The agent in a thread: signals interrupt the main thread alone, and torch's agent would give its ranks up."""

    def __init__(self, agent: _Agent) -> None:
        super().__init__(name="elastic agent")
        self._agent = agent
        self._result: RunResult | None = None
        self._error: Exception | None = None
        self.start()

    def run(self) -> None:
        try:
            self._result = self._agent.run()
            self._agent.close_rendezvous()
        except Exception as error:  # raised again by `result`
            self._error = error

    def result(self) -> RunResult:
        if self._error is not None:
            raise self._error
        assert self._result is not None
        return self._result


class _SignalQueue:
    """While inside, keeps the signals that stop a run; of a SIGINT soon after another, as of one Ctrl-C, the first."""

    def __init__(self) -> None:
        self._numbers: list[int] = []
        self._interrupted: float | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> _SignalQueue:
        self._before = {number: signal.signal(number, self._note) for number in handled_signals()}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            now = time.monotonic()
            if self._interrupted is not None and now - self._interrupted < APART:
                return
            self._interrupted = now
        self._numbers.append(number)

    def take(self) -> list[int]:
        """Return the signals that have come since the last call."""
        taken, self._numbers = self._numbers, []
        return taken


def exit_code(result: RunResult, interrupted: bool) -> int:
    """Return the exit code of the rank that ended first, of those that ended by themselves; 0 if none failed.

    Raises:
        FaultError: all were ended by signals, and could not say why.
        KeyboardInterrupt: by SIGINT, or after a second one.
    """
    codes = {rank: failure.exitcode for rank, failure in result.failures.items()}  # about in the order of their end
    if not codes:
        return 0
    if own := [code for code in codes.values() if code > 0]:
        return own[0]
    if interrupted or -signal.SIGINT in codes.values():
        raise KeyboardInterrupt
    # The agent ends the others by SIGTERM.
    rank, code = next(((r, c) for r, c in codes.items() if c != -signal.SIGTERM), next(iter(codes.items())))
    name = next((s.name for s in signal.Signals if s == -code), f"signal {-code}")
    raise FaultError(
        f"process {rank} (counted from 0) was ended by {name}; the same command starts again, or continues",
        exit_code=128 - code,
    )
