from __future__ import annotations

import ctypes
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from helpers.ranks import exit_codes, run_ranks, start_command
from resnext_train.distributed import dist_context
from resnext_train.distributed.agreement import RankFacts
from resnext_train.distributed.dist_context import DistContext, connect
from resnext_train.distributed.flag_sync import FlagSync, StepFlags
from resnext_train.distributed.heartbeat import Heartbeat
from resnext_train.distributed.rank import Rank, this_rank
from resnext_train.errors import InputError


def refused_everywhere(context: DistContext) -> str:
    def work() -> None:
        if context.rank == 1:
            raise InputError("rank 1 found it")

    try:
        context.run_on_all_ranks(work)
    except InputError as error:
        return str(error)
    return "nothing"


def turns(context: DistContext, log: Path) -> list[str]:
    """Which rank worked when, with each host's first rank before the others."""

    def work() -> None:
        with log.open("a") as file:
            file.write(f"{context.rank}\n")

    context.local_rank0_first(work)
    return log.read_text().split()


def test_fp32_means_fp32_on_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dist_context, "pick_device", lambda local_rank: torch.device("cuda", local_rank))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    operations = (torch.backends.cudnn.conv, torch.backends.cuda.matmul)  # type: ignore[attr-defined]
    before = [operation.fp32_precision for operation in operations]
    with connect():
        assert [operation.fp32_precision for operation in operations] == ["ieee", "ieee"]
    for operation, precision in zip(operations, before, strict=True):
        operation.fp32_precision = precision
    assert torch.backends.cudnn.allow_tf32, "torch raises here where the older setting was written as well"


@pytest.mark.slow
def test_what_one_process_finds_all_raise(tmp_path: Path) -> None:
    assert run_ranks(refused_everywhere, 3, tmp_path) == ["rank 1 found it"] * 3


@pytest.mark.slow
def test_the_first_of_a_host_works_before_the_others(tmp_path: Path) -> None:
    for order in run_ranks(turns, 3, tmp_path, tmp_path / "log"):
        assert order[0] == "0"
    assert sorted((tmp_path / "log").read_text().split()) == ["0", "1", "2"]


def flags_of_one(context: DistContext) -> list[list[int]]:
    """What is agreed on where each flag is set by another rank, and then by none."""
    context.start_training(20.0)
    none = StepFlags(0, save=False, best_lost=0, saves_failing=False)
    mine = [none._replace(stop_signal=15), none._replace(save=True, best_lost=7), none._replace(saves_failing=True)]
    return [list(context.all_reduce_flags(mine[context.rank])), list(context.all_reduce_flags(none))]


def late_flags(context: DistContext) -> list[list[int]]:
    """The same one call late, as on GPUs."""
    assert context.control is not None
    context.flag_sync = FlagSync(context.control, one_call_late=True)
    flags = [StepFlags(n if context.rank else 0, save=False, best_lost=0, saves_failing=False) for n in (0, 15, 0, 2)]
    return [list(context.all_reduce_flags(f)) for f in flags]


@pytest.mark.slow
def test_a_flag_of_one_rank_reaches_all(tmp_path: Path) -> None:
    assert run_ranks(flags_of_one, 3, tmp_path) == [[[15, 1, 7, 1], [0, 0, 0, 0]]] * 3
    assert [[f[0] for f in flags] for flags in run_ranks(late_flags, 2, tmp_path)] == [[0, 0, 15, 0]] * 2


@pytest.mark.slow
def test_only_a_rank_without_a_heartbeat_is_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Heartbeat, "_EVERY", 0.05)
    monkeypatch.setattr(Heartbeat, "_SILENCE", 1.0)
    store = dist.TCPStore("127.0.0.1", 0, is_master=True)  # type: ignore[attr-defined]  # torch does not re-export it
    heartbeats = [Heartbeat(store, rank, 3) for rank in range(3)]
    try:
        assert heartbeats[0].dead_ranks() == []
        heartbeats[1].stop()
        time.sleep(0.2)
        assert [heartbeats[rank].dead_ranks() for rank in (0, 2)] == [[1], [1]]
        assert heartbeats[2].first_dead_ranks() == [1]
        heartbeats[2].stop()  # as a process that ends because another is dead
        time.sleep(0.2)
        assert heartbeats[0].dead_ranks() == [1, 2]
        assert heartbeats[0].first_dead_ranks() == [1], "who is looked for later was not lost first"
        heartbeats[2].leave("a reason")
        heartbeats += [Heartbeat(store, rank, 3) for rank in range(3)]  # as where a launcher starts all ranks again
        assert heartbeats[3].reason_of_leaving() is None
        assert heartbeats[3].first_dead_ranks() == []
    finally:
        for heartbeat in heartbeats:
            heartbeat.stop()


ERRORS = {"InputError": InputError, "KeyError": KeyError}


def leave_with_a_busy_store(arguments: Sequence[str]) -> int:
    """As a rank whose heartbeat calls the store without a pause; end as an interpreter does, by threads and all."""
    Heartbeat._EVERY = 0.0
    with suppress(*ERRORS.values()), connect(20.0):
        if arguments:
            raise ERRORS[arguments[0]]("found")
    ctypes.pythonapi.Py_Exit(3)
    return 0


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [[], ["InputError"], ["KeyError"]], ids=str)
def test_no_thread_calls_the_store_when_the_interpreter_ends(arguments: list[str], tmp_path: Path) -> None:
    """It would end the process by SIGABRT, whatever its exit code: torch's threads do not expect Python to be gone."""
    assert exit_codes(start_command(leave_with_a_busy_store, 2, *arguments, output=tmp_path / "out")) == [3, 3]


def test_without_torchrun_there_is_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    with connect() as context:
        assert (context.rank, context.world_size, context.is_main) == (0, 1, True)
        assert context.gather("x") == ["x"]
        assert context.all_reduce_sum(torch.ones(2)).tolist() == [1, 1]
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "")  # as a script exports what it does not know
    assert this_rank() == Rank()


def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for name, value in Rank(0, 4, 0, 4, "localhost", 29500).variables().items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=r"^4 processes .*\b2 GPUs"), connect():
        pass


def test_nccl_waits_longer_than_gloo_so_that_the_lost_rank_is_named_first(monkeypatch: pytest.MonkeyPatch) -> None:
    class Reached(Exception):  # noqa: N818
        pass

    asked: dict[str, Any] = {}

    def begin(backend: str, **options: Any) -> None:
        asked.update(options, backend=backend)
        raise Reached

    for name, value in Rank(0, 2, 0, 1, "localhost", 29500).variables().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    facts = RankFacts("host", software={"found": "the same"})
    monkeypatch.setattr(dist_context, "_meet", lambda place: None)
    monkeypatch.setattr(dist_context, "_facts", lambda device: facts)
    monkeypatch.setattr(dist_context, "exchange_facts", lambda *arguments: None)
    monkeypatch.setattr(dist, "init_process_group", begin)
    with pytest.raises(Reached), connect(100.0):
        pass
    assert (asked["backend"], asked["timeout"].total_seconds()) == ("gloo", 100)
    monkeypatch.setattr(dist_context, "pick_device", lambda local_rank: torch.device("cuda", local_rank))
    monkeypatch.setattr(dist_context, "prepare_gpu_libraries", lambda: None)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    with pytest.raises(Reached), connect(100.0):
        pass
    assert (asked["backend"], asked["timeout"].total_seconds()) == ("nccl", 160)
