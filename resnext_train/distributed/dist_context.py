"""This rank among those of a run: its device, and what ranks do together."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from resnext_train.compute.backend import prepare_gpu_libraries
from resnext_train.distributed.flag_sync import FlagSync, StepFlags
from resnext_train.distributed.heartbeat import Heartbeat, dead_ranks_named
from resnext_train.distributed.rank import PATIENCE, Rank, this_rank
from resnext_train.errors import InputError, LocalInputError, Preempted

T = TypeVar("T")


@dataclass
class DistContext:
    """This rank, its device, and what it does together with the others. A single process is rank 0 of 1.

    Gradients travel on the default process group. `control` is a Gloo group for all else: it needs no GPU, and so never
    waits for one.
    """

    place: Rank
    device: torch.device
    control: dist.ProcessGroup | None = None
    heartbeat: Heartbeat | None = None
    flag_sync: FlagSync | None = None

    @property
    def rank(self) -> int:
        return self.place.rank

    @property
    def world_size(self) -> int:
        return self.place.world_size

    @property
    def local_world_size(self) -> int:
        return self.place.local_world_size

    @property
    def is_main(self) -> bool:
        return self.place.is_main

    def start_training(self, patience: float) -> None:
        """End the set-up, which may take hours: from here on ranks wait at most `patience` seconds for each other."""
        if self.world_size > 1:
            group = dist.new_group(backend="gloo", timeout=timedelta(seconds=patience))
            assert isinstance(group, dist.ProcessGroup)
            self.control = group
            self.flag_sync = FlagSync(group, one_call_late=self.device.type == "cuda")

    def dead_ranks_named(self) -> AbstractContextManager[None]:
        """Return a context in which the error of a collective that lost a rank becomes a FaultError that names it."""
        return dead_ranks_named(self.heartbeat)

    def all_reduce_flags(self, flags: StepFlags) -> StepFlags:
        """Return the largest of each flag over all ranks, see FlagSync.all_reduce_max. Call `start_training` before."""
        if self.world_size == 1:
            return flags
        assert self.flag_sync is not None, "training has not started"
        return self.flag_sync.all_reduce_max(flags)

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

    def run_on_main(self, work: Callable[[], T]) -> T:
        """Run `work` on rank 0 and return its result, which must be picklable, on all ranks; so with an InputError."""
        return self.gather(self.run_on_all_ranks(lambda: work() if self.is_main else None))[0]  # type: ignore[return-value]

    def local_rank0_first(self, work: Callable[[], T]) -> T:
        """Like `run_on_all_ranks`, but each host's other ranks wait for its first, and find its caches warm."""
        if self.place.is_first_on_host:
            result = self.run_on_all_ranks(work)
            self.run_on_all_ranks(lambda: None)
            return result
        self.run_on_all_ranks(lambda: None)
        return self.run_on_all_ranks(work)


def pick_device(local_rank: int) -> torch.device:
    """Return the CUDA device of this rank, or the CPU where there is none."""
    return torch.device("cuda", local_rank) if torch.cuda.is_available() else torch.device("cpu")


@contextmanager
def connect(patience: float = PATIENCE) -> Iterator[DistContext]:
    """Join the process group that the launcher's environment describes: NCCL on GPUs, Gloo on CPUs.

    Ranks wait `patience` seconds for the gradients of another before they give it up.

    Raises:
        InputError: more processes on this host than GPUs.
        FaultError: while inside, a rank or the connection to it is gone.
    """
    place = this_rank()
    device = pick_device(place.local_rank)
    context = DistContext(place, device)
    if device.type == "cuda":
        if context.local_world_size > torch.cuda.device_count():
            raise InputError(
                f"{context.local_world_size} processes on this host but {torch.cuda.device_count()} GPUs; "
                f"start at most {torch.cuda.device_count()}"
            )
        torch.cuda.set_device(device)
        prepare_gpu_libraries()
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
        with dead_ranks_named(heartbeat):
            yield DistContext(place, device, control, heartbeat)  # type: ignore[arg-type]
    except Preempted:  # all ranks leave at the same step
        _disconnect(heartbeat)
        raise
    except LocalInputError as error:
        heartbeat.leave(str(error))
        raise
    # Not after another exception: while other ranks still communicate, this one would wait for them forever.
    _disconnect(heartbeat)


_SET_UP = timedelta(hours=2)
"""How long ranks wait for each other before the first step: one may have to scan millions of files."""


def _disconnect(heartbeat: Heartbeat) -> None:
    heartbeat.stop()
    dist.destroy_process_group()
