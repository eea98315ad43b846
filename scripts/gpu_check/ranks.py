"""Run a function on several ranks: real processes, joined by NCCL on GPUs and by Gloo on CPUs."""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from resnext_train.distributed.dist_context import connect
from scripts.gpu_check.report import Host

PATIENCE = 30.0
"""Seconds that ranks wait for each other."""


def run_ranks(work: Callable[..., Any], world_size: int, host: Host, *arguments: Any) -> list[Any]:
    """Return what `work(context, *arguments)` returns on each rank: plain values and tensors on the CPU.

    `work` is a function of a module. Ranks start from one process that has imported torch, and so in a moment.

    Raises:
        RuntimeError: a rank has failed, or they are not done before the stage's time is.
    """
    # Not fork: a process that has used CUDA cannot be forked.
    mp_context = multiprocessing.get_context("forkserver")
    compiler = ["torch._dynamo"] if "resnext_train.training.optimizer" in sys.modules else []  # of torch's optimizers
    mp_context.set_forkserver_preload([work.__module__, *compiler])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    files = [host.folder / f"rank{rank}_of_{world_size}_{port}.pt" for rank in range(world_size)]
    ranks = [
        mp_context.Process(target=_rank, args=(rank, world_size, port, file, host.device, work, arguments))
        for rank, file in enumerate(files)
    ]
    for rank in ranks:
        rank.start()
    deadline = time.monotonic() + host.seconds
    while any(rank.exitcode is None for rank in ranks) and not any(rank.exitcode for rank in ranks):
        ranks[0].join(0.05)
        if time.monotonic() > deadline:
            break
    for rank in ranks:
        rank.join(0 if any(r.exitcode for r in ranks) else None)
        rank.kill()
        rank.join()
    if codes := {number: rank.exitcode for number, rank in enumerate(ranks) if rank.exitcode}:
        raise RuntimeError(f"of {world_size} ranks, by rank, these ended with exit codes {codes}")
    return [torch.load(file, weights_only=True) for file in files]


def _rank(
    rank: int,
    world_size: int,
    port: int,
    file: Path,
    device: str,
    work: Callable[..., Any],
    arguments: tuple[Any, ...],
) -> None:
    os.environ |= {
        **{"RANK": str(rank), "WORLD_SIZE": str(world_size)},
        **{"LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(world_size)},
        **{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)},
    }
    if device == "cpu":
        torch.set_num_threads(1)
    with connect(PATIENCE) as context:
        torch.save(work(context, *arguments), file)


def alone(work: Callable[..., Any], host: Host, *arguments: Any) -> Any:
    """Return what `work(context, *arguments)` returns on a single rank in a process of its own."""
    return run_ranks(work, 1, host, *arguments)[0]


def equal_on_all(results: list[dict[str, torch.Tensor]]) -> bool:
    """Return whether ranks have the same tensors, bit by bit."""
    first, *others = results
    return all(same_bits(first, other) for other in others)


def same_bits(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """Return whether two sets of tensors have the same names and bits; NaN equals itself."""
    return one.keys() == other.keys() and all(
        (t.dtype, t.shape) == (other[name].dtype, other[name].shape)
        and t.contiguous().numpy().tobytes() == other[name].contiguous().numpy().tobytes()
        for name, t in one.items()
    )
