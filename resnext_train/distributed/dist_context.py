"""This rank among those of a run: its device, and what ranks do together."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from resnext_train import __version__
from resnext_train.compute.backend import prepare_gpu_libraries
from resnext_train.distributed.agreement import (
    RankFacts,
    check_agreement,
    cores_of_rank,
    exchange_facts,
    forget_facts,
)
from resnext_train.distributed.environment import environment_set
from resnext_train.distributed.flag_sync import FlagSync, StepFlags
from resnext_train.distributed.heartbeat import Heartbeat, dead_ranks_named
from resnext_train.distributed.loss_watch import LossWatch, Record
from resnext_train.distributed.rank import PATIENCE, Rank, this_rank, threads_are_chosen
from resnext_train.distributed.usable_cores import CoreShare, own_share
from resnext_train.errors import FaultError, InputError, LocalInputError, Preempted, ReportedInputError

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
    loss_watch: LossWatch | None = None
    cores: CoreShare = field(default_factory=own_share)

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

    def loss_recorded_by(self, record: Record) -> AbstractContextManager[None]:
        """Return a context in which `record` is called with the error before a lost rank ends this stuck process."""
        return self.loss_watch.recorded_by(record) if self.loss_watch else nullcontext()

    def check_agreement(self, verb: str, value: str, remedy: str) -> None:
        """Check that `value` is the same on all ranks, see `check_agreement` in agreement.py."""
        values = self.gather((value, socket.gethostname()))
        check_agreement(verb, [v for v, _ in values], [host for _, host in values], remedy)

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


def single_process() -> DistContext:
    """Return the context of a process that works alone, on the first GPU or the CPU."""
    context = DistContext(Rank(), pick_device(0))
    if context.device.type == "cuda":
        prepare_gpu_libraries()
    return context


@contextmanager
def connect(patience: float = PATIENCE) -> Iterator[DistContext]:
    """Join the process group that the launcher's environment describes: NCCL on GPUs, Gloo on CPUs.

    Ranks wait `patience` seconds for the gradients of another before they give it up.

    Raises:
        InputError: more processes on this host than GPUs; the ranks do not meet, or differ in device or versions.
        FaultError: while inside, a rank or the connection to it is gone.
    """
    place = this_rank()
    # A scheduler may show each task its own GPU alone; ranks that share one are found when they tell each other of it.
    one_each = place.by_slurm and torch.cuda.device_count() == 1
    device = pick_device(0 if one_each else place.local_rank)
    context = DistContext(place, device)
    if device.type == "cuda":
        if context.local_world_size > torch.cuda.device_count() and not one_each:
            raise InputError(
                f"{context.local_world_size} processes on this host but {torch.cuda.device_count()} GPUs; "
                f"start at most {torch.cuda.device_count()}"
            )
        torch.cuda.set_device(device)
        prepare_gpu_libraries()
    if context.world_size == 1:
        yield context
        return
    heartbeat, watch = _join(context, patience)
    try:
        with dead_ranks_named(heartbeat):
            yield context
    except Preempted:  # all ranks leave at the same step
        _disconnect(heartbeat)
        raise
    except LocalInputError as error:
        if not heartbeat.leave(str(error)):
            raise ReportedInputError(str(error)) from error
        raise
    except (InputError, FaultError):  # all ranks raise it
        heartbeat.end_in_order()
        raise
    else:  # not after another exception: while other ranks still communicate, this one would wait for them forever
        _disconnect(heartbeat)
    finally:
        # A thread that comes back from torch while Python ends would end the process by SIGABRT.
        watch.stop()
        heartbeat.stop()


def _join(context: DistContext, patience: float) -> tuple[Heartbeat, LossWatch]:
    """Meet the other ranks, compare with them what all need alike, and begin to show that this one lives."""
    place, device = context.place, context.device
    store = _meet(place)
    facts = _facts(device)
    exchange_facts(store, place.rank, place.world_size, facts)
    backend, group_device, longer = ("nccl", device, _NCCL_LONGER) if device.type == "cuda" else ("gloo", None, 0.0)
    dist.init_process_group(
        backend,
        timeout=timedelta(seconds=patience + longer),
        rank=place.rank,
        world_size=place.world_size,
        store=store,
        device_id=group_device,
    )
    control = dist.new_group(backend="gloo", timeout=_SET_UP)
    forget_facts(store, place.rank)
    context.control = control  # type: ignore[assignment]
    all_facts = context.gather(facts)  # anew: a launcher's store may have had those of an earlier start
    context.cores = cores_of_rank(all_facts, place.rank)
    if not threads_are_chosen():
        torch.set_num_threads(context.cores.whole)
    context.heartbeat = heartbeat = Heartbeat(store, place.rank, place.world_size)
    context.loss_watch = watch = LossWatch(heartbeat, [facts.process for facts in all_facts], patience)
    return heartbeat, watch


_NCCL_LONGER = 60.0
"""Seconds that NCCL waits longer than Gloo: its watchdog ends the process without naming the rank that is lost."""

_JOIN = timedelta(minutes=15)
"""How long a rank waits for the others to start."""

_SET_UP = timedelta(hours=2)
"""How long ranks wait for each other before the first step: one may have to scan millions of files."""


def _disconnect(heartbeat: Heartbeat) -> None:
    heartbeat.end_in_order()
    dist.destroy_process_group()


def _meet(place: Rank) -> Any:
    """Return the store that all ranks share.

    Raises:
        InputError: its address does not answer, or cannot be this host's; or ranks do not come.
    """
    where = f"at MASTER_ADDR={place.address}, MASTER_PORT={place.port}"
    try:
        with environment_set(place.variables()), _said_if_slow(place, where):
            store, _, _ = next(dist.rendezvous("env://", timeout=_JOIN))  # type: ignore[attr-defined]
    except dist.DistError as error:
        reason = str(error).partition("\n")[0][:200]
        raise InputError(
            f"the {place.world_size} processes cannot meet {where} ({reason}); see that rank 0 is started there, that "
            "the port is free on its host, and that the others reach it"
        ) from error
    return store


@contextmanager
def _said_if_slow(place: Rank, where: str) -> Iterator[None]:
    """Say on each host, once it takes some seconds, that processes are waited for."""
    text = f"waiting up to {_JOIN.seconds // 60} minutes for all of the {place.world_size} processes {where}"
    timer = threading.Timer(_SLOW, lambda: print(text, file=sys.stderr, flush=True))
    timer.daemon = True
    if place.is_first_on_host:
        timer.start()
    try:
        yield
    finally:
        timer.cancel()


_SLOW = 10.0
"""Seconds after which it is said that processes are waited for."""


def _facts(device: torch.device) -> RankFacts:
    """Return what this rank tells the others."""
    torch_version = torch.__version__.partition("+")[0]  # what it is built for is NCCL's matter, which has a version
    software = {"found": "no GPU", "came with torch": torch_version, "came with resnext-train": __version__}
    gpu = ""
    if device.type == "cuda":
        software |= {"found": "a GPU (cuda)"}
        if dist.is_nccl_available():
            software |= {"came with NCCL": ".".join(map(str, torch.cuda.nccl.version()))}  # type: ignore[no-untyped-call]
        gpu = str(getattr(torch.cuda.get_device_properties(device), "uuid", ""))
    return RankFacts(socket.gethostname(), software=software, gpu=gpu)
