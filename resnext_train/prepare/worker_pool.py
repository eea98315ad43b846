"""A pool of worker processes that exit when their parent does, even if it is killed."""

from __future__ import annotations

import signal
import time
import traceback
from collections.abc import Callable, Iterator
from multiprocessing import forkserver, get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

from resnext_train.errors import InputError

Task = TypeVar("Task")
Result = TypeVar("Result")
Advance = Callable[[int], object]
"""Called with the number of images done since the last call."""

_PRELOAD = ["resnext_train.prepare.pack_split"]
"""Imported once in the fork server, before it forks workers."""

_EVERY = 0.1
"""Seconds between a worker's progress messages. Sending fails if the parent was killed, and then the worker exits."""


def run(
    work: Callable[[Task, Advance], Result], tasks: Iterator[Task], workers: int, advance: Advance
) -> Iterator[Result]:
    """Yield the results of `work` for all tasks in order of completion; with one worker, run in this process.

    `work`, the tasks and the results are pickled. Each process uses one torch thread.

    Raises:
        InputError: `work` raised it, or a worker was killed.
        RuntimeError: `work` raised another error.
    """
    if workers <= 1:
        _use_one_thread()
        for task in tasks:
            yield work(task, advance)
        return
    pool = _Pool(work, workers)
    try:
        yield from pool.results(tasks, advance)
    finally:
        pool.stop()


def start_server() -> None:
    """Start the fork server, which imports what workers need while this process goes on.

    The server has imported torch but not used it: forking it is quick and copies no running threads.
    """
    get_context("forkserver").set_forkserver_preload(_PRELOAD)
    forkserver.ensure_running()


class _Pool:
    def __init__(self, work: Callable[[Any, Advance], Any], workers: int) -> None:
        start_server()
        context = get_context("forkserver")
        self._processes: dict[Connection, BaseProcess] = {}
        for _ in range(workers):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, work), daemon=True)
            process.start()
            theirs.close()
            self._processes[ours] = process

    def results(self, tasks: Iterator[Any], advance: Advance) -> Iterator[Any]:
        busy: set[Connection] = set()
        for connection in self._processes:
            self._send_next(connection, tasks, busy)
        while busy:
            for ready in wait(list(busy)):
                assert isinstance(ready, Connection)
                kind, value = self._receive(ready)
                if kind == "seen":
                    advance(value)
                elif kind == "failed":
                    raise value
                else:
                    busy.discard(ready)
                    self._send_next(ready, tasks, busy)
                    yield value

    def _send_next(self, connection: Connection, tasks: Iterator[Any], busy: set[Connection]) -> None:
        for task in tasks:
            connection.send(task)
            busy.add(connection)
            return

    def _receive(self, connection: Connection) -> tuple[str, Any]:
        try:
            message: tuple[str, Any] = connection.recv()
            return message
        except (EOFError, ConnectionResetError) as error:
            raise InputError(
                "a worker was killed, perhaps because memory ran out; give the same command again, "
                "with fewer --workers if so"
            ) from error

    def stop(self) -> None:
        for connection, process in self._processes.items():
            connection.close()
            process.terminate()
        for process in self._processes.values():
            process.join()


def _use_one_thread() -> None:
    import torch  # here, so that start_server takes no time

    torch.set_num_threads(1)


def _serve(connection: Connection, work: Callable[[Any, Advance], Any]) -> None:
    """Run tasks received over `connection` until it is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent gets Ctrl-C too and terminates its workers
    _use_one_thread()
    try:
        while True:
            task = connection.recv()
            sender = _ProgressSender(connection)
            try:
                result = work(task, sender.advance)
            except InputError as error:
                connection.send(("failed", error))
                return
            except (BrokenPipeError, ConnectionResetError):
                raise
            except Exception:  # the parent raises it
                connection.send(("failed", RuntimeError(traceback.format_exc())))
                return
            sender.flush()
            connection.send(("done", result))
    except (EOFError, OSError):
        return  # the parent has gone


class _ProgressSender:
    def __init__(self, connection: Connection) -> None:
        self._connection, self._count, self._last = connection, 0, time.monotonic()

    def advance(self, count: int) -> None:
        self._count += count
        if time.monotonic() - self._last >= _EVERY:
            self.flush()

    def flush(self) -> None:
        self._connection.send(("seen", self._count))
        self._count, self._last = 0, time.monotonic()
