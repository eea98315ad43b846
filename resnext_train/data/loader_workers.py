"""Loader processes: how many to start, whether /dev/shm holds their batches, and why one of them died."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from resnext_train.data.batch_datasets import SHARED_BUFFERS
from resnext_train.distributed.usable_cores import usable_cores
from resnext_train.errors import InputError, LocalInputError


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
    signal = re.search(r"killed by signal: (.+?)\.", message)
    ended = f"was ended by a signal, {signal[1]}" if signal else "exited"
    return f"a loader process {ended}; `resnext prepare check` the images, or set data.workers=0 to see where it was"


def worker_count(workers: int | Literal["auto"], local_world_size: int) -> int:
    """Return the number of loader processes per training process; auto: all its cores but one, and at least one.

    `local_world_size` is the number of training processes on this host.
    """
    return max(1, usable_cores() // local_world_size - 1) if workers == "auto" else workers


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
