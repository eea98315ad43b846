"""One process among those torchrun started: who it is, what it computes on, and how it agrees with the others."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from resnext_train.distributed.heartbeat import Pulse
from resnext_train.errors import InputError, Preempted

T = TypeVar("T")


@dataclass(frozen=True)
class Process:
    """This process's place among all of a run; a single process is rank 0 of 1.

    Besides the group that gradients travel on there is one of Gloo's for what the hosts have to say to each other: it
    needs no GPU, and so never waits for one.
    """

    rank: int
    world: int
    local_rank: int
    local_world: int
    device: torch.device
    control: dist.ProcessGroup | None = None
    pulse: Pulse | None = None

    def in_training(self, patience: float) -> Process:
        """The same process for after the set-up: from now on it waits `patience` seconds for another, no longer."""
        if self.world == 1:
            return self
        group = dist.new_group(backend="gloo", timeout=timedelta(seconds=patience))
        return replace(self, control=group)  # type: ignore[arg-type]

    @property
    def is_main(self) -> bool:
        """Whether this process writes the run folder and speaks to the user."""
        return self.rank == 0

    def sum_(self, tensor: torch.Tensor) -> torch.Tensor:
        """Sum of `tensor` over all processes, in place."""
        if self.world > 1:
            dist.all_reduce(tensor)
        return tensor

    def gather(self, value: T) -> list[T]:
        """The picklable `value` of every process, by rank, on every process."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        dist.all_gather_object(values, value, group=self.control)
        return values

    def together(self, work: Callable[[], T]) -> T:
        """Run `work` here; if it raises InputError on any process, raise that on all, so that none waits in vain.

        `work` must not communicate.
        """
        result: T | None = None
        problem: InputError | None = None
        try:
            result = work()
        except InputError as error:
            problem = error
        first = next((p for p in self.gather(str(problem) if problem else None) if p), None)
        if first is not None:
            raise InputError(first) from problem
        return result  # type: ignore[return-value]

    def host_first(self, work: Callable[[], T]) -> T:
        """Like `together`, with each host's first process done before its others start: they find its caches warm."""
        if self.local_rank == 0:
            result = self.together(work)
            self.together(lambda: None)
            return result
        self.together(lambda: None)
        return self.together(work)


def pick_device(local_rank: int) -> torch.device:
    """The CUDA device of this process, or the CPU where there is none."""
    return torch.device("cuda", local_rank) if torch.cuda.is_available() else torch.device("cpu")


@contextmanager
def connect(patience: float = 600.0) -> Iterator[Process]:
    """This process as torchrun's environment describes it, in a process group: NCCL on GPUs, Gloo on CPUs.

    A process that keeps the others waiting for their gradients for `patience` seconds is given up.

    Raises:
        InputError: more processes on this host than GPUs.
    """
    env = {k: int(os.environ.get(k, d)) for k, d in _ENVIRONMENT.items()}
    device = pick_device(env["LOCAL_RANK"])
    process = Process(env["RANK"], env["WORLD_SIZE"], env["LOCAL_RANK"], env["LOCAL_WORLD_SIZE"], device)
    if device.type == "cuda":
        if process.local_world > torch.cuda.device_count():
            raise InputError(
                f"{process.local_world} processes on this host but {torch.cuda.device_count()} GPUs; "
                f"start torchrun with --nproc_per_node={torch.cuda.device_count()}"
            )
        torch.cuda.set_device(device)
        torch.backends.cudnn.benchmark = True  # image and group sizes are the same in all steps but an epoch's last
        torch.backends.cudnn.allow_tf32 = False  # fp32 means fp32; bf16 and fp16 are not affected
    if process.world == 1:
        yield process
        return
    store, rank, world = next(dist.rendezvous("env://"))  # type: ignore[attr-defined]
    backend, group_device = ("nccl", device) if device.type == "cuda" else ("gloo", None)
    dist.init_process_group(
        backend, timeout=timedelta(seconds=patience), rank=rank, world_size=world, store=store, device_id=group_device
    )
    control = dist.new_group(backend="gloo", timeout=_SET_UP)
    pulse = Pulse(store, rank, world)
    try:
        yield replace(process, control=control, pulse=pulse)  # type: ignore[arg-type]
    except Preempted:  # all processes leave at the same step
        _disconnect(pulse)
        raise
    # Not after another exception: while other processes still communicate, this one would wait for them for good.
    _disconnect(pulse)


_SET_UP = timedelta(hours=2)
"""How long processes wait for each other before the first step: one of them may have millions of files to find."""


def _disconnect(pulse: Pulse) -> None:
    pulse.stop()
    dist.destroy_process_group()


_ENVIRONMENT = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
