"""Run a function on several ranks in real processes joined by Gloo, without importing torch anew in each."""

from __future__ import annotations

import multiprocessing
import os
import socket
import warnings
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import torch

from resnext_train.config import load_recipe
from resnext_train.distributed.dist_context import DistContext, connect
from resnext_train.distributed.rank import Rank
from resnext_train.errors import FaultError, Preempted
from resnext_train.run_dir.run_paths import RunDir
from resnext_train.training.setup import set_up
from resnext_train.training.trainer import train

Work = Callable[..., Any]
_PATIENCE = 20.0
"""Seconds, as of train.patience."""


def run_ranks(work: Work, world_size: int, folder: Path, *arguments: Any) -> list[Any]:
    """`work(process, *arguments)` on each of `world_size` ranks with one thread each; what they return, by rank."""
    ranks = start_ranks(work, world_size, folder, *arguments)
    for rank in ranks:
        rank.join(120)
        rank.kill()
    assert [r.exitcode for r in ranks] == [0] * world_size
    return [returned(folder, r, world_size) for r in range(world_size)]


def start_ranks(work: Work, world_size: int, folder: Path, *arguments: Any) -> list[ForkServerProcess]:
    """Start what `run_ranks` runs."""
    mp_context = multiprocessing.get_context("forkserver")
    mp_context.set_forkserver_preload(["resnext_train.training.trainer"])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ranks = [
        mp_context.Process(target=_rank, args=(work, r, world_size, port, _result(folder, r, world_size), arguments))
        for r in range(world_size)
    ]
    for rank in ranks:
        rank.start()
    return ranks


def returned(folder: Path, rank: int, world_size: int) -> Any:
    """What a rank has returned."""
    return torch.load(_result(folder, rank, world_size), weights_only=True)


def _result(folder: Path, rank: int, world_size: int) -> Path:
    return folder / f"rank{rank}_of_{world_size}.pt"


def train_ranks(
    context: DistContext, out: Path, options: list[str], checkpoint: Path | None = None
) -> dict[str, Any] | str:
    """smoke.yaml with `options`, for `run_ranks`: the summary, or the sentence of the error that ended the run."""
    recipe = load_recipe("smoke.yaml", options)
    folder = RunDir(out)
    try:
        setup = set_up(recipe, context)
        return train(setup, folder, str(checkpoint) if checkpoint else "auto")
    except (FaultError, Preempted) as error:
        return str(error)


def _rank(work: Work, rank: int, world_size: int, port: int, result: Path, arguments: tuple[Any, ...]) -> None:
    os.environ |= {
        **{
            "RANK": str(rank),
            "WORLD_SIZE": str(world_size),
            "LOCAL_RANK": str(rank),
            "LOCAL_WORLD_SIZE": str(world_size),
        },
        **{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)},
    }
    torch.set_num_threads(1)
    warnings.simplefilter("error")
    with connect(_PATIENCE) as context:
        torch.save(work(context, *arguments), result)


def single(work: Work, *arguments: Any) -> Any:
    """`work` on one process, in this one."""
    torch.set_num_threads(1)
    return work(DistContext(Rank(), torch.device("cpu")), *arguments)
