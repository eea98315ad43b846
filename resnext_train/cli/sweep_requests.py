"""What `resnext sweep` and `resnext runs` are asked for. Imports no torch; all functions raise InputError."""

from __future__ import annotations

import os
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path

from resnext_train.cli.requests import check_procs, given_overrides
from resnext_train.config import RUNS
from resnext_train.distributed.rank import this_rank
from resnext_train.errors import InputError
from resnext_train.report.papers.paper_tables import recipes_of
from resnext_train.sweep.sweep_plan import PlannedRun, plan_sweep, read_axis, read_seeds


@dataclass(frozen=True)
class SweepRequest:
    """Runs to carry out, or to print as command lines."""

    runs: tuple[PlannedRun, ...]
    out: Path
    """The folder of their folders."""
    only_print: bool
    table: str | None
    """The paper's table that the recipes are of."""


def read_sweep(args: Namespace) -> SweepRequest:
    """Plan all runs, and check each as `resnext train` does."""
    check_procs(args.procs)
    if (started := this_rank().world_size) > 1:
        raise InputError(
            f"a sweep starts its runs by itself, but this is one of {started} processes of a launcher such as "
            "torchrun; leave that out, and give --procs"
        )
    configs = [word for word in args.config if not _is_override(word)]
    overrides = [*given_overrides(args), *(word for word in args.config if _is_override(word))]
    if args.table is not None:
        configs += [name for name in recipes_of(args.table) if name not in configs]
    if not configs:
        raise InputError("--config: name recipes, such as resnet50_1x64d resnext50_32x4d; `resnext info` lists them")
    out = Path(args.out) if args.out else RUNS
    seeds = read_seeds(args.seeds) if args.seeds else ()
    axes = [read_axis(word) for word in args.set]
    runs = plan_sweep(configs, axes, seeds, overrides, out, args.procs, starts=not args.print)
    return SweepRequest(tuple(runs), out, args.print, args.table)


def _is_override(word: str) -> bool:
    """Return whether a word behind --config, which takes all that follow, is an override."""
    return "=" in word and not os.path.lexists(word)


@dataclass(frozen=True)
class RunsRequest:
    """Folders whose runs are listed."""

    folders: tuple[str, ...]


def read_runs_request(args: Namespace) -> RunsRequest:
    """Take the folders as they are: they are looked into by the command."""
    return RunsRequest(tuple(args.folder))
