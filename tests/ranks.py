"""Run a function on several ranks in real processes joined by Gloo, without importing torch anew in each."""

from __future__ import annotations

import multiprocessing
import os
import socket
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from resnext_train.distributed import Process, connect

Work = Callable[..., Any]


def run_ranks(work: Work, world: int, folder: Path, *arguments: Any) -> list[Any]:
    """`work(process, *arguments)` on each of `world` ranks with one thread each; what they return, by rank."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["resnext_train.train"])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    results = [folder / f"rank{r}_of_{world}.pt" for r in range(world)]
    ranks = [context.Process(target=_rank, args=(work, r, world, port, results[r], arguments)) for r in range(world)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join(120)
        rank.kill()
    assert [r.exitcode for r in ranks] == [0] * world
    return [torch.load(path, weights_only=True) for path in results]


def _rank(work: Work, rank: int, world: int, port: int, result: Path, arguments: tuple[Any, ...]) -> None:
    os.environ |= {
        **{
            "RANK": str(rank),
            "WORLD_SIZE": str(world),
            "LOCAL_RANK": str(rank),
            "LOCAL_WORLD_SIZE": str(world),
        },
        **{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)},
    }
    torch.set_num_threads(1)
    warnings.simplefilter("error")
    with connect() as process:
        torch.save(work(process, *arguments), result)


def single(work: Work, *arguments: Any) -> Any:
    """`work` on one process, in this one."""
    torch.set_num_threads(1)
    return work(Process(0, 1, 0, 1, torch.device("cpu")), *arguments)
