"""Runs whose /dev/shm is small, as in a container."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from helpers.runs import RUN, environment, module

pytestmark = [pytest.mark.slow, pytest.mark.root]
OWN_MOUNTS = ["unshare", "--mount"]


def with_small_shared_memory(megabytes: int, tmp_path: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    """A smoke run whose /dev/shm is a tmpfs of its own of that size."""
    if (
        not shutil.which("unshare")
        or subprocess.run([*OWN_MOUNTS, "true"], capture_output=True, check=False).returncode
    ):
        pytest.skip("cannot have mounts of its own here")
    mount = f'mount -t tmpfs -o size={megabytes}m small /dev/shm && exec "$@"'
    return subprocess.run(
        [*OWN_MOUNTS, "sh", "-c", mount, "sh", *module("train", *RUN, "--out", str(tmp_path / "run"), *overrides)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env=environment(),
    )


def test_a_small_dev_shm_is_noticed_before_the_first_step(tmp_path: Path) -> None:
    # Micro-batches of 4 and evaluation batches of 64 images of 400 × 400 for each of two processes.
    large = ["augment.size=400", "eval.resize=400", "eval.crop=400", "eval.batch_size=64", "data.workers=2"]
    done = with_small_shared_memory(64, tmp_path, *large)
    assert done.returncode == 2
    assert (
        "/dev/shm has 67 MB free, but 2 loader processes need 261 MB; enlarge it (docker run --shm-size" in done.stderr
    )
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_run_within_a_small_dev_shm(tmp_path: Path) -> None:
    done = with_small_shared_memory(1, tmp_path, "data.workers=1", "train.epochs=1")
    assert done.returncode == 0, done.stderr
