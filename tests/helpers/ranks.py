"""Run functions and commands on several ranks: real processes joined by Gloo, without importing torch anew in each."""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
import warnings
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import torch

from helpers.commands import Command
from resnext_train.config import load_recipe
from resnext_train.distributed.dist_context import DistContext, connect
from resnext_train.distributed.rank import Rank
from resnext_train.errors import FaultError, InputError, Preempted
from resnext_train.run_dir.run_paths import RunDir
from resnext_train.training.run import train
from resnext_train.training.setup import set_up

Work = Callable[..., Any]
_LIMIT = 120.0
"""Seconds that ranks may take."""
PRELOADED = ["resnext_train.training.run", "resnext_train.models.complexity", "torch._dynamo"]
"""What ranks find imported; the optimizers of torch import the last, which takes longest."""


def run_ranks(work: Work, world_size: int, folder: Path, *arguments: Any) -> list[Any]:
    """`work(context, *arguments)` on each of `world_size` ranks with one thread each; what they return, by rank."""
    ranks = start_ranks(work, world_size, folder, *arguments)
    assert exit_codes(ranks) == [0] * world_size
    return [returned(folder, r, world_size) for r in range(world_size)]


def start_ranks(
    work: Work, world_size: int, folder: Path, *arguments: Any, patience: float = 20.0
) -> list[ForkServerProcess]:
    """Start what `run_ranks` runs. Ranks wait `patience` seconds for each other's gradients."""
    return _start(world_size, lambda rank: (_work, work, patience, _result(folder, rank, world_size), arguments))


def run_command(command: Command, world_size: int, *arguments: str) -> None:
    """Run a command on each of `world_size` ranks with one thread each, as torchrun does. It must succeed.

    Not for runs with loader processes, which only the end of a whole interpreter stops.
    """
    assert exit_codes(start_command(command, world_size, *arguments)) == [0] * world_size


def start_command(
    command: Command,
    world_size: int,
    *arguments: str,
    prepare: Callable[[], None] | None = None,
    output: Path | None = None,
) -> list[ForkServerProcess]:
    """Start what `run_command` runs; each rank calls `prepare` first, and prints to the file `output`."""
    return _start(world_size, lambda rank: (_command, command, arguments, prepare, output))


def refusals(prepare: Callable[[], None], world_size: int, folder: Path) -> list[str]:
    """With which sentence each rank is refused by `connect`, or as smoke.yaml is set up, after it calls `prepare`."""
    ranks = _start(world_size, lambda rank: (_refusal, prepare, _result(folder, rank, world_size)))
    assert exit_codes(ranks) == [0] * world_size
    return [returned(folder, r, world_size) for r in range(world_size)]


def as_by_srun() -> None:
    """On a rank: take torchrun's variables for those that Slurm gives the tasks of a step, all on one node."""
    variables = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    rank, world_size, local_rank, local_world_size, host, port = (os.environ.pop(name) for name in variables)
    os.environ |= {"SLURM_PROCID": rank, "SLURM_LOCALID": local_rank, "SLURM_NODEID": "0", "SLURM_NTASKS": world_size}
    os.environ |= {"SLURM_STEP_TASKS_PER_NODE": local_world_size, "SLURM_STEP_NODELIST": host}
    os.environ |= {"SLURM_JOB_ID": port, "SLURM_STEP_ID": "0"}  # a job that no other test has


def exit_codes(ranks: list[ForkServerProcess]) -> list[int | None]:
    """How ranks end, by rank; those that do not end in time are killed."""
    for rank in ranks:
        rank.join(_LIMIT)
        rank.kill()
        rank.join()
    return [rank.exitcode for rank in ranks]


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


def _start(world_size: int, job: Callable[[int], tuple[Any, ...]]) -> list[ForkServerProcess]:
    mp_context = multiprocessing.get_context("forkserver")
    mp_context.set_forkserver_preload(PRELOADED)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ranks = [mp_context.Process(target=_rank, args=(r, world_size, port, *job(r))) for r in range(world_size)]
    for rank in ranks:
        rank.start()
    return ranks


def _rank(rank: int, world_size: int, port: int, run: Callable[..., None], *arguments: Any) -> None:
    os.environ |= {
        **{"RANK": str(rank), "WORLD_SIZE": str(world_size)},
        **{"LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(world_size)},
        **{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"},
    }
    torch.set_num_threads(1)
    warnings.simplefilter("error")
    warnings.filterwarnings("ignore", ".torch.jit.script_method. is deprecated", DeprecationWarning)  # pyproject.toml
    warnings.filterwarnings("ignore", "The ``noload`` loader strategy is deprecated", DeprecationWarning)
    run(*arguments)


def _work(work: Work, patience: float, result: Path, arguments: tuple[Any, ...]) -> None:
    with connect(patience) as context:
        torch.save(work(context, *arguments), result)


def _refusal(prepare: Callable[[], None], result: Path) -> None:
    prepare()
    try:
        with connect() as context:
            set_up(load_recipe("smoke.yaml"), context)
    except InputError as error:
        torch.save(str(error), result)


def _command(
    command: Command, arguments: tuple[str, ...], prepare: Callable[[], None] | None, output: Path | None
) -> None:
    if output:
        with output.open("ab") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
    if prepare:
        prepare()
    sys.exit(command(arguments))


def single(work: Work, *arguments: Any) -> Any:
    """`work` on one process, in this one."""
    torch.set_num_threads(1)
    return work(DistContext(Rank(), torch.device("cpu")), *arguments)
