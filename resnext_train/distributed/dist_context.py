"""This rank among those that torchrun started: its place, its device, and what ranks do together."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from resnext_train.distributed.heartbeat import Heartbeat
from resnext_train.errors import InputError, Preempted

T = TypeVar("T")


@dataclass(frozen=True)
class DistContext:
    """This rank's place among all of a run; a single process is rank 0 of 1.

    Gradients travel on the default process group. `control` is a Gloo group for all else: it needs no GPU, and so never
    waits for one.
    """

    rank: int
    world_size: int
    local_rank: int
    local_world_size: int
    device: torch.device
    control: dist.ProcessGroup | None = None
    heartbeat: Heartbeat | None = None

    def in_training(self, patience: float) -> DistContext:
        """Return the context for after the set-up, in which ranks wait at most `patience` seconds for each other."""
        if self.world_size == 1:
            return self
        group = dist.new_group(backend="gloo", timeout=timedelta(seconds=patience))
        return replace(self, control=group)  # type: ignore[arg-type]

    @property
    def is_main(self) -> bool:
        """Whether this rank writes the run folder and prints to the user."""
        return self.rank == 0

    def all_reduce_sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """Sum `tensor` over all ranks, in place."""
        if self.world_size > 1:
            dist.all_reduce(tensor)
        return tensor

    def gather(self, value: T) -> list[T]:
        """Return the picklable `value` of every rank, by rank."""
        if self.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value, group=self.control)
        return values

    def run_on_all_ranks(self, work: Callable[[], T]) -> T:
        """Run `work` on all ranks. If it raises InputError on one, raise that on all, so that none waits for it.

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

    def local_rank0_first(self, work: Callable[[], T]) -> T:
        """Like `run_on_all_ranks`, but each host's other ranks wait for its first, and find its caches warm."""
        if self.local_rank == 0:
            result = self.run_on_all_ranks(work)
            self.run_on_all_ranks(lambda: None)
            return result
        self.run_on_all_ranks(lambda: None)
        return self.run_on_all_ranks(work)


def pick_device(local_rank: int) -> torch.device:
    """Return the CUDA device of this rank, or the CPU where there is none."""
    return torch.device("cuda", local_rank) if torch.cuda.is_available() else torch.device("cpu")


@contextmanager
def connect(patience: float = 600.0) -> Iterator[DistContext]:
    """Join the process group that torchrun's environment describes: NCCL on GPUs, Gloo on CPUs.

    Ranks wait `patience` seconds for the gradients of another before they give it up.

    Raises:
        InputError: more processes on this host than GPUs.
    """
    env = {k: int(os.environ.get(k, d)) for k, d in _ENVIRONMENT.items()}
    device = pick_device(env["LOCAL_RANK"])
    context = DistContext(env["RANK"], env["WORLD_SIZE"], env["LOCAL_RANK"], env["LOCAL_WORLD_SIZE"], device)
    if device.type == "cuda":
        if context.local_world_size > torch.cuda.device_count():
            raise InputError(
                f"{context.local_world_size} processes on this host but {torch.cuda.device_count()} GPUs; "
                f"start torchrun with --nproc_per_node={torch.cuda.device_count()}"
            )
        torch.cuda.set_device(device)
        torch.backends.cudnn.benchmark = True  # sizes are the same in all steps but an epoch's last
        torch.backends.cudnn.allow_tf32 = False  # fp32 means fp32; bf16 and fp16 are not affected
    if context.world_size == 1:
        yield context
        return
    store, rank, world_size = next(dist.rendezvous("env://"))  # type: ignore[attr-defined]
    backend, group_device = ("nccl", device) if device.type == "cuda" else ("gloo", None)
    dist.init_process_group(
        backend,
        timeout=timedelta(seconds=patience),
        rank=rank,
        world_size=world_size,
        store=store,
        device_id=group_device,
    )
    control = dist.new_group(backend="gloo", timeout=_SET_UP)
    heartbeat = Heartbeat(store, rank, world_size)
    try:
        yield replace(context, control=control, heartbeat=heartbeat)  # type: ignore[arg-type]
    except Preempted:  # all ranks leave at the same step
        _disconnect(heartbeat)
        raise
    # Not after another exception: while other ranks still communicate, this one would wait for them forever.
    _disconnect(heartbeat)


_SET_UP = timedelta(hours=2)
"""How long ranks wait for each other before the first step: one may have to scan millions of files."""


def _disconnect(heartbeat: Heartbeat) -> None:
    heartbeat.stop()
    dist.destroy_process_group()


_ENVIRONMENT = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
