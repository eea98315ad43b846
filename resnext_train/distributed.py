"""One process among those torchrun started: who it is, what it computes on, and how it agrees with the others."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from resnext_train.errors import FaultError, InputError, Preempted

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


class Agreement:
    """What any process wishes is known to all at the same step, without making a GPU wait."""

    def __init__(self, process: Process, wishes: int, patience: float) -> None:
        """`wishes` numbers are agreed on; a process that is silent for `patience` seconds is waited for no longer."""
        self._process, self._patience = process, timedelta(seconds=patience)
        self._before: tuple[torch.Tensor, dist.Work] | None = None
        self._none = [0] * wishes

    def at_boundary(self, wishes: list[int]) -> list[int]:
        """The largest of each number over all processes; every process calls this as often.

        On GPUs that is what was wished at the call before: so the exchange has a whole step's time, and costs none.

        Raises:
            RuntimeError: another process is gone.
        """
        if self._process.world == 1:
            return wishes
        tensor = torch.tensor(wishes)
        work = dist.all_reduce(tensor, dist.ReduceOp.MAX, group=self._process.control, async_op=True)
        assert work is not None
        fresh, ready = (tensor, work), self._before
        if self._process.device.type == "cpu":
            ready = fresh
        self._before = fresh
        if ready is None:
            return self._none
        ready[1].wait(self._patience)
        return ready[0].tolist()  # type: ignore[no-any-return]


class Pulse:
    """A thread by which every process shows twice a second, in torchrun's store, that it lives."""

    _EVERY = 0.5
    _SILENCE = 4.0

    def __init__(self, store: Any, rank: int, world: int) -> None:
        self._store, self._rank, self._world = store.clone(), rank, world
        self._end = threading.Event()
        self._beat(0)
        threading.Thread(target=self._run, name="pulse", daemon=True).start()

    def stop(self) -> None:
        """Show no more."""
        self._end.set()

    def _run(self) -> None:
        count = 0
        while not self._end.wait(self._EVERY):
            count += 1
            try:
                self._beat(count)
            except RuntimeError:  # the store's host is gone, and with it those who would read this
                return

    def _beat(self, count: int) -> None:
        self._store.set(self._key(self._rank), str(count))

    @staticmethod
    def _key(rank: int) -> str:
        return f"resnext_train/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}/pulse/{rank}"

    def silent(self) -> list[int]:
        """The ranks without a sign of life for some seconds.

        Raises:
            RuntimeError: the store cannot be reached.
        """
        store = self._store.clone()
        store.set_timeout(timedelta(seconds=self._SILENCE))
        keys = [self._key(rank) for rank in range(self._world)]
        before = store.multi_get(keys)
        silent = set(range(self._world)) - {self._rank}
        deadline = time.monotonic() + self._SILENCE
        while silent and time.monotonic() < deadline:
            time.sleep(self._EVERY / 2)
            now = store.multi_get(keys)
            silent -= {rank for rank in silent if now[rank] != before[rank]}
        return sorted(silent)


@contextmanager
def lost_processes_named(process: Process) -> Iterator[None]:
    """Turn what communication says when another process is gone into an error that names it.

    Raises:
        FaultError: another process, or the connection to it, is gone.
    """
    try:
        yield
    except RuntimeError as error:
        if process.pulse is None or not _LOST.search(str(error)):
            raise
        raise _loss_of(process.pulse, process) from error


_LOST = re.compile(
    r"closed by peer|reset by peer|Connection refused|Broken pipe|Timed out|timed out|timeout|NCCL|"
    r"remote process|Socket|unhandled system error"
)
"""What Gloo and NCCL say when they lose another process."""


def _loss_of(pulse: Pulse, process: Process) -> FaultError:
    go_on = "the same command continues from the last checkpoint"
    try:
        silent = pulse.silent()
    except RuntimeError:
        return FaultError(f"the first host, or the connection to it, is gone; {go_on}", told_here=True)
    if not silent:
        return FaultError(f"the connection between the processes broke, though all {process.world} live; {go_on}")
    told = " and ".join(map(str, silent))
    speaker = min(set(range(process.world)) - set(silent))
    return FaultError(
        f"process {told} of {process.world} (counted from 0) is gone, killed or stuck; {go_on}",
        told_here=process.rank == speaker,
    )


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
