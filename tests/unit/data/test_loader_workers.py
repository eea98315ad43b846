"""Loader processes: their number, the memory they share, and why one died."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from resnext_train.data.loader_workers import check_shared_memory, worker_count, worker_deaths_explained
from resnext_train.errors import InputError, LocalInputError


def test_workers_auto_shares_the_cores_and_leaves_one_to_each_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(16)), raising=False)
    assert [worker_count("auto", local) for local in (1, 4, 8, 32)] == [15, 3, 1, 1]
    assert worker_count(3, 8) == 3


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
