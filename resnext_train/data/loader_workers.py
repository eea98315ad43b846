"""Loader processes: how they are started, how many, whether /dev/shm holds their batches, and why one of them died."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing import forkserver, get_context, resource_tracker
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from resnext_train.data.batch_datasets import SHARED_BUFFERS
from resnext_train.distributed.environment import environment_set
from resnext_train.distributed.stop_signals import outlive_stop_signals, signals_held_back
from resnext_train.distributed.usable_cores import CoreShare
from resnext_train.errors import InputError, LocalInputError

START = "RESNEXT_TRAIN_LOADER_START"
"""Environment variable that names another way to start loader processes."""

_START_METHODS = ("fork", "forkserver", "spawn") if sys.platform == "linux" else ("spawn",)


def start_method() -> str:
    """Return how loader processes are started: by the first of _START_METHODS, or as START says.

    Forked ones begin at once and share the lists of images, and torch hears of their death at once. A lock that another
    thread holds at that moment stays held in them, but what they call takes none of those that threads of NCCL, Gloo,
    CUDA and checkpoints hold, and those of Python and the C library are made for it. Frameworks of macOS are not.

    Raises:
        InputError: START names none.
    """
    method = os.environ.get(START) or _START_METHODS[0]
    if method not in _START_METHODS:
        known = " or ".join(_START_METHODS)
        raise InputError(f"{START}={method} is no way to start loader processes here; set it to {known}, or unset it")
    return method


def process_arguments(workers: int) -> dict[str, Any]:
    """Return the arguments by which a DataLoader starts `workers` processes; 0: it loads in this process."""
    if not workers:
        return {"num_workers": 0}
    init = partial(_init_worker, os.getpid())
    return {"num_workers": workers, "multiprocessing_context": start_method(), "worker_init_fn": init}


def _init_worker(trainer: int, worker: int) -> None:
    sys.excepthook = _print_unless_left
    outlive_stop_signals(trainer)


def _print_unless_left(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print an exception of a thread that hands over batches, but none because the trainer was killed meanwhile."""
    if not isinstance(error, (ConnectionError, EOFError)):
        sys.__excepthook__(kind, error, trace)


_NOT_OF_SEMAPHORES = "ignore::UserWarning:multiprocessing.resource_tracker"
"""After a trainer that was killed, the tracker removes the semaphores of its queues; it need not say so."""


@contextmanager
def starting_processes(workers: int) -> Iterator[None]:
    """While inside, `iter` of a DataLoader may start `workers` processes: no stop signal ends one in its beginning."""
    if not workers:
        yield
        return
    with warnings.catch_warnings(), signals_held_back():
        # Python 3.12 and newer warn of every fork beside other threads; `start_method` says why it is right here.
        warnings.filterwarnings("ignore", r".*multi-threaded, use of fork\(\)", DeprecationWarning)
        method = start_method()
        if method != "fork":
            with environment_set({"PYTHONWARNINGS": _NOT_OF_SEMAPHORES}):
                resource_tracker.ensure_running()  # before the others: it lets SIGINT and SIGTERM through again
        with signals_held_back():
            if method == "forkserver":
                get_context("forkserver").set_forkserver_preload(["resnext_train.data.device_loader"])
                forkserver.ensure_running()  # stop signals stay held back in it
            yield


def name_signal(error: RuntimeError, processes: Iterable[BaseProcess]) -> RuntimeError:
    """Return an error of torch about one of `processes` with the signal that ended it.

    torch itself knows that only of its children, which those of a fork server are not.
    """
    if "exited unexpectedly" in str(error):
        for process in processes:
            if (code := process.exitcode or 0) < 0:
                name = signal.strsignal(-code)
                return RuntimeError(f"DataLoader worker (pid {process.pid}) is killed by signal: {name}. ")
    return error


@contextmanager
def worker_deaths_explained() -> Iterator[None]:
    """Turn the death of a loader process into an error with the reason.

    Raises:
        LocalInputError: a loader process was killed or exited.
    """
    try:
        yield
    except RuntimeError as error:
        chain = [str(error), str(error.__cause__), str(error.__context__)]
        if re.search(r"unable to \w+ shared memory", chain[0]):
            raise LocalInputError(
                f"{SHARED_MEMORY} is full, where loader processes pass on batches; enlarge it, or lower data.workers"
            ) from error
        deaths = [text for text in chain if re.match(r"DataLoader worker \(pid.*(killed by|exited unexpectedly)", text)]
        if not deaths:
            raise
        raise LocalInputError(_cause_of_death("\n".join(deaths))) from error


def _cause_of_death(message: str) -> str:
    if "Bus error" in message:
        return (
            "a loader process died of a bus error: /dev/shm is full (enlarge it, or lower data.workers), or a pack of "
            "tier raw was cut short while it was read"
        )
    if "Killed" in message:
        return (
            "a loader process was killed, as the system does where memory runs out; "
            "lower data.workers, or find out with `dmesg` what killed it"
        )
    name = re.search(r"killed by signal: (.+?)\.", message)
    ended = f"was ended by a signal, {name[1]}" if name else "exited"
    return f"a loader process {ended}; `resnext prepare check` the images, or set data.workers=0 to see where it was"


def worker_count(workers: int | Literal["auto"], cores: CoreShare) -> int:
    """Return the number of loader processes per training process; auto: all its cores but one, and at least one."""
    return max(1, cores.whole - 1) if workers == "auto" else workers


def worker_text(workers: int | Literal["auto"], cores: CoreShare) -> str:
    """Return the number of loader processes per training process, and why that many, as a short phrase."""
    count = worker_count(workers, cores)
    if workers != "auto":
        return f"{count} each, as data.workers says"
    left = "one is left for training" if cores.whole > 1 else "training shares them"
    return f"{count} each: {cores.text}, {left}"


SHARED_MEMORY = Path("/dev/shm")
"""Where Linux keeps memory that processes share; often only 64 MB in a container."""


def check_shared_memory(batch_bytes: int, processes: int, shared: Path = SHARED_MEMORY) -> None:
    """Check that `processes` loader processes on this host have room for batches of `batch_bytes` each.

    Raises:
        InputError: `shared` is too small; with what to set.
    """
    needed = batch_bytes * processes * SHARED_BUFFERS
    if not processes or not shared.is_dir():
        return
    try:
        with tempfile.TemporaryFile(dir=shared) as file:
            file.write(b"1")
    except OSError as error:
        raise InputError(
            f"{shared} cannot be written ({error.strerror}), and loader processes pass batches on there; make it "
            "writable, or set data.workers=0"
        ) from error
    if (free := shutil.disk_usage(shared).free) >= needed:
        return
    raise InputError(
        f"{shared} has {free / 1e6:.0f} MB free, but {processes} loader processes need {needed / 1e6:.0f} MB; "
        "enlarge it (docker run --shm-size=8g, or mount -o remount,size=8g), lower data.workers, or set it to 0"
    )
