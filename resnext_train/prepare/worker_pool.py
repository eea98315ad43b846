"""Run tasks in worker processes that exit when their parent does, even if it is killed.

ProcessPoolExecutor would not do. Each of its workers holds both ends of the queue of tasks, so none sees the parent go.
Its locks are named semaphores: a killed command leaves them in /dev/shm, or ends with a warning about them.
"""

from __future__ import annotations

import signal
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice
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

    `work`, the tasks and the results are pickled. A task is drawn when a worker is free for it. Each process uses one
    torch thread.

    Raises:
        InputError: `work` raised it, or a worker was killed.
        RuntimeError: `work` raised another error.
    """
    if workers <= 1:
        _use_one_thread()
        for task in tasks:
            yield work(task, advance)
        return
    start_server()
    context = get_context("forkserver")
    processes: dict[Connection, BaseProcess] = {}
    busy: set[Connection] = set()

    def send_next(connection: Connection) -> None:
        for task in islice(tasks, 1):
            with _killed_worker_explained():
                connection.send(task)
            busy.add(connection)

    try:
        for _ in range(workers):
            ours, theirs = context.Pipe()
            process: BaseProcess = context.Process(target=_serve, args=(theirs, work), daemon=True)
            process.start()
            theirs.close()
            processes[ours] = process
            send_next(ours)
        while busy:
            for ready in wait(busy):
                assert isinstance(ready, Connection)
                with _killed_worker_explained():
                    images, kind, value = ready.recv()
                advance(images)
                if kind == "failed":
                    raise value
                if kind == "done":
                    busy.remove(ready)
                    send_next(ready)
                    yield value
    finally:
        for connection, process in processes.items():
            connection.close()
            process.terminate()
        for process in processes.values():
            process.join()


def start_server() -> None:
    """Start the fork server, which imports what workers need while this process goes on.

    The server has imported torch but not used it: forking it is quick and copies no running threads.
    """
    get_context("forkserver").set_forkserver_preload(_PRELOAD)
    forkserver.ensure_running()


@contextmanager
def _killed_worker_explained() -> Iterator[None]:
    try:
        yield
    except (EOFError, ConnectionError) as error:
        raise InputError(
            "a worker was killed, perhaps because memory ran out; give the same command again, "
            "with fewer --workers if so"
            # Its traceback holds a view of the message's buffer in a cycle, on which Python 3.12 and 3.13 crash.
        ) from error.with_traceback(None)


def _use_one_thread() -> None:
    import torch  # here, so that start_server takes no time

    torch.set_num_threads(1)


def _serve(connection: Connection, work: Callable[[Any, Advance], Any]) -> None:
    """Run tasks received over `connection` until it is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent gets Ctrl-C too and terminates its workers
    _use_one_thread()
    unsent, last = 0, time.monotonic()

    def send(kind: str, value: object = None) -> None:
        nonlocal unsent, last
        connection.send((unsent, kind, value))
        unsent, last = 0, time.monotonic()

    def advance(images: int) -> None:
        nonlocal unsent
        unsent += images
        if time.monotonic() - last >= _EVERY:
            send("progress")

    with suppress(EOFError, OSError):  # the parent has gone
        while True:
            task = connection.recv()
            try:
                result = work(task, advance)
            except InputError as error:
                send("failed", error)
            except Exception:  # the parent raises it
                send("failed", RuntimeError(traceback.format_exc()))
            else:
                send("done", result)
