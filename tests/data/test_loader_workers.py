"""Loader processes: their number, the memory they share, and why one died."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import SMALL

from resnext_train.data.loader_workers import check_shared_memory, worker_count, worker_deaths_explained
from resnext_train.errors import InputError, LocalInputError

MOUNT = ["unshare", "-m", "mount", "-t", "tmpfs", "none", "/mnt"]
CAN_MOUNT = bool(shutil.which("unshare")) and subprocess.run(MOUNT, capture_output=True, check=False).returncode == 0
"""Whether a process of ours may have a /dev/shm of its own."""


def test_workers_auto_shares_the_cores_and_leaves_one_to_each_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(16)), raising=False)
    assert [worker_count("auto", local) for local in (1, 4, 8, 32)] == [15, 3, 1, 1]
    assert worker_count(3, 8) == 3


def with_small_shared_memory(megabytes: int, tmp_path: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    """A smoke run whose /dev/shm is a tmpfs of its own of that size."""
    run = [*("train", "--config", "smoke.yaml", "--out", str(tmp_path / "run")), *SMALL, *overrides]
    mount = f'mount -t tmpfs -o size={megabytes}m small /dev/shm && exec "$@"'
    return subprocess.run(
        ["unshare", "-m", "sh", "-c", mount, "sh", sys.executable, "-m", "resnext_train", *run],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


@pytest.mark.skipif(not CAN_MOUNT, reason="needs the right to mount a small /dev/shm (root on Linux)")
def test_a_small_dev_shm_is_noticed_before_the_first_step(tmp_path: Path) -> None:
    # Groups of 4 and batches of 64 images of 400 × 400 for each of two processes
    large = ["augment.size=400", "eval.resize=400", "eval.crop=400", "eval.batch_size=64", "data.workers=2"]
    done = with_small_shared_memory(64, tmp_path, *large)
    assert done.returncode == 2
    assert (
        "/dev/shm has 67 MB free, but 2 loader processes need 261 MB; enlarge it (docker run --shm-size" in done.stderr
    )
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(not CAN_MOUNT, reason="needs the right to mount a small /dev/shm (root on Linux)")
def test_a_run_within_a_small_dev_shm(tmp_path: Path) -> None:
    done = with_small_shared_memory(1, tmp_path, "data.workers=1", "train.epochs=1")
    assert done.returncode == 0, done.stderr


def test_room_is_what_the_arithmetic_says(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    check_shared_memory(free // 100, 10, tmp_path)  # 4 micro-batches for each of 10 processes are 40 %
    check_shared_memory(10**15, 0, tmp_path)
    check_shared_memory(10**15, 8, tmp_path / "absent")
    with pytest.raises(InputError, match=r"but 50 loader processes need \d+ MB"):
        check_shared_memory(free // 100, 50, tmp_path)


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ("DataLoader worker (pid 7) is killed by signal: Killed. ", "memory runs out"),
        ("DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that", "/dev/shm is full"),
        ("DataLoader worker (pid 7) is killed by signal: Segmentation fault. ", "by a signal, Segmentation fault;"),
        ("DataLoader worker (pid(s) 7) exited unexpectedly", "a loader process exited;"),
    ],
)
def test_the_ways_in_which_torch_tells_of_a_dead_worker(message: str, told: str) -> None:
    with pytest.raises(LocalInputError, match=told), worker_deaths_explained():
        raise RuntimeError(message)


def test_other_errors_are_left_alone() -> None:
    with pytest.raises(RuntimeError, match="Caught KeyError in DataLoader worker process 0"), worker_deaths_explained():
        raise RuntimeError("Caught KeyError in DataLoader worker process 0.")
