"""Runs whose /dev/shm is small, as in a container."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from functools import partial
from pathlib import Path

import pytest

from helpers.commands import train
from helpers.ranks import exit_codes, start_command
from helpers.runs import RUN, environment, module

pytestmark = [pytest.mark.slow, pytest.mark.root]
OWN_MOUNTS = ["unshare", "--mount"]
_CLONE_NEWNS = 0x20000
"""Of linux/sched.h."""


@pytest.fixture(autouse=True)
def _own_mounts() -> None:
    if (
        not shutil.which("unshare")
        or subprocess.run([*OWN_MOUNTS, "true"], capture_output=True, check=False).returncode
    ):
        pytest.skip("cannot have mounts of its own here")


def mount(megabytes: int) -> list[str]:
    return ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "small", "/dev/shm"]


def take_a_small_dev_shm(megabytes: int) -> None:
    """Give this process a /dev/shm of its own of that size, as `unshare --mount` does."""
    assert ctypes.CDLL(None).unshare(_CLONE_NEWNS) == 0
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    subprocess.run(mount(megabytes), check=True)


def test_a_small_dev_shm_is_noticed_before_the_first_step(tmp_path: Path) -> None:
    # Micro-batches of 4 and evaluation batches of 64 images of 400 × 400 for each of two processes.
    large = ["augment.size=400", "eval.resize=400", "eval.crop=400", "eval.batch_size=64", "data.workers=2"]
    output = tmp_path / "output"
    arguments = [*RUN, "--out", str(tmp_path / "run"), *large]
    run = start_command(train, 1, *arguments, prepare=partial(take_a_small_dev_shm, 64), output=output)
    assert exit_codes(run) == [2], output.read_text()
    told = "/dev/shm has 67 MB free, but 2 loader processes need 261 MB; enlarge it (docker run --shm-size"
    assert told in output.read_text()
    assert output.read_text().count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_run_within_a_small_dev_shm(tmp_path: Path) -> None:
    run = module("train", *RUN, "--out", str(tmp_path / "run"), "data.workers=1", "train.epochs=1")
    done = subprocess.run(
        [*OWN_MOUNTS, "sh", "-c", f'{" ".join(mount(1))} && exec "$@"', "sh", *run],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env=environment(),
    )
    assert done.returncode == 0, done.stderr
