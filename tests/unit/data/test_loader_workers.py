"""Loader processes: their number, the memory they share, and why one died."""

from __future__ import annotations

import shutil
import signal
import sys
import threading
import warnings
from multiprocessing import get_context
from pathlib import Path
from typing import Any, cast

import pytest
from torch.utils.data import DataLoader

from resnext_train.data.loader_workers import (
    START,
    check_shared_memory,
    name_signal,
    process_arguments,
    start_method,
    starting_processes,
    worker_count,
    worker_deaths_explained,
    worker_text,
)
from resnext_train.distributed.usable_cores import CoreShare
from resnext_train.errors import InputError, LocalInputError


def test_workers_auto_takes_the_part_of_this_rank_but_one_core() -> None:
    parts = [CoreShare(part, allowed=16) for part in (16.0, 4.0, 2.0, 0.5)]
    assert [worker_count("auto", part) for part in parts] == [15, 3, 1, 1]
    assert worker_count(3, parts[3]) == 3


def test_the_reason_names_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 56)
    expected = "27 each: 28 of this host's 56 cores are this process's, one is left for training"
    assert worker_text("auto", CoreShare(28.0, allowed=28)) == expected
    assert "0.7 of this host's 56 cores" in worker_text("auto", CoreShare(2 / 3, allowed=2))
    assert "quota" in worker_text("auto", CoreShare(1.5, allowed=8, quota=3.0))
    assert worker_text(3, CoreShare(28.0, allowed=28)).startswith("3 each")


def test_loader_processes_are_forked_on_linux_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(START, raising=False)
    assert start_method() == ("fork" if sys.platform == "linux" else "spawn")
    monkeypatch.setenv(START, "spawn")
    assert start_method() == "spawn"
    monkeypatch.setenv(START, "thread")
    with pytest.raises(InputError, match=f"^{START}=thread "):
        start_method()


def test_starting_them_beside_threads_warns_of_nothing() -> None:
    """Python 3.12 and newer warn of such a fork."""
    end, numbers = threading.Event(), cast("Any", [1, 2])
    thread = threading.Thread(target=end.wait)
    thread.start()
    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            with starting_processes(1):
                batches = iter(DataLoader(numbers, batch_size=None, **process_arguments(1)))
        assert list(batches) == [1, 2]
        assert [str(warning.message) for warning in told] == []
    finally:
        end.set()
        thread.join()


def test_a_killed_process_of_a_fork_server_is_told_as_a_child_would_be() -> None:
    process = get_context("fork").Process(target=signal.pause)
    with starting_processes(1):
        process.start()
    process.kill()
    process.join()
    error = RuntimeError(f"DataLoader worker (pid(s) {process.pid}) exited unexpectedly")
    with pytest.raises(LocalInputError, match=r"data\.workers.*dmesg"), worker_deaths_explained():
        raise name_signal(error, [process])
    other = RuntimeError("Caught KeyError in DataLoader worker process 0.")
    assert name_signal(other, [process]) is other


def test_room_is_what_the_arithmetic_says(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    check_shared_memory(free // 100, 10, tmp_path)  # 4 micro-batches for each of 10 processes are 40 %
    check_shared_memory(10**15, 0, tmp_path)
    check_shared_memory(10**15, 8, tmp_path / "absent")
    with pytest.raises(InputError, match=rf"^{tmp_path} .*\b50 .*data\.workers"):
        check_shared_memory(free // 100, 50, tmp_path)


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ("DataLoader worker (pid 7) is killed by signal: Killed. ", "data.workers.*dmesg"),
        ("DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that", "/dev/shm .*data.workers"),
        ("DataLoader worker (pid 7) is killed by signal: Segmentation fault. ", " Segmentation fault;.*data.workers=0"),
        (
            "Caught RuntimeError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n"
            "RuntimeError: unable to allocate shared memory(shm) for file </torch_28_1>: No space left on device (28)",
            "^/dev/shm is full",
        ),
        ("DataLoader worker (pid(s) 7) exited unexpectedly", " exited;.*data.workers=0"),
    ],
)
def test_the_ways_in_which_torch_tells_of_a_dead_worker(message: str, told: str) -> None:
    with pytest.raises(LocalInputError, match=told), worker_deaths_explained():
        raise RuntimeError(message)


def test_other_errors_are_left_alone() -> None:
    with pytest.raises(RuntimeError, match="Caught KeyError in DataLoader worker process 0"), worker_deaths_explained():
        raise RuntimeError("Caught KeyError in DataLoader worker process 0.")
