"""What `resnext bench` is asked for. Imports no torch.

Each `read_*` takes the parsed arguments of a command and returns what its module carries out. All raise InputError.
"""

from __future__ import annotations

from argparse import Namespace
from dataclasses import dataclass

from resnext_train.bench import TIERS
from resnext_train.cli.requests import check_json, check_procs, given_overrides
from resnext_train.config import Recipe, check_micro_batches, load_recipe, load_recipe_with_notes
from resnext_train.distributed.process_limits import check_socket_folder
from resnext_train.distributed.rank import PATIENCE, this_rank
from resnext_train.errors import InputError
from resnext_train.models.architecture import check_network


@dataclass(frozen=True)
class DataRequest:
    """Images to read for the clock."""

    recipe: Recipe
    images: int
    rounds: int
    tiers: list[str]
    baseline: bool
    json: str | None


def read_data(args: Namespace) -> DataRequest:
    """Read the recipe, and check the measurement's options."""
    words = args.tiers or []  # argparse gives --tiers the overrides that follow it, too
    tiers, own = [w for w in words if "=" not in w], [w for w in words if "=" in w] + args.overrides
    _check_at_least(args, "images", 2)
    _check_at_least(args, "rounds", 1)
    for tier in tiers:
        if tier not in TIERS:
            raise InputError(f"--tiers {tier}: must be among {', '.join(TIERS)}")
    if args.tiers and not tiers:
        raise InputError(f"--tiers names no tier; name some of {', '.join(TIERS)}")
    recipe = load_recipe(args.config, [*args.shortcuts, *own])
    check_json(args.json)
    check_socket_folder()
    return DataRequest(recipe, args.images, args.rounds, list(dict.fromkeys(tiers)), args.baseline, args.json)


@dataclass(frozen=True)
class StepRequest:
    """A recipe's step to take for the clock."""

    recipe: Recipe
    rounds: int
    json: str | None

    @property
    def patience_seconds(self) -> float:
        """How long ranks wait for each other, in seconds."""
        return PATIENCE


def read_step(args: Namespace) -> StepRequest:
    """Read the recipe, and check that its step can be divided among the processes."""
    _check_at_least(args, "rounds", 1)
    check_procs(args.procs)
    recipe = _recipe(args, max(args.procs, this_rank().world_size))
    check_json(args.json)
    return StepRequest(recipe, args.rounds, args.json)


@dataclass(frozen=True)
class ScalingRequest:
    """Numbers of processes to take a recipe's step on, for the clock."""

    recipe: Recipe
    arguments: tuple[str, ...]
    """Those of `resnext bench step`, but for --procs and --json."""
    procs: tuple[int, ...]
    """Ascending, from 1; none: those that this machine can have."""
    json: str | None


def read_scaling(args: Namespace) -> ScalingRequest:
    """Read the recipe, and check that its step can be divided among the processes."""
    _check_at_least(args, "rounds", 1)
    procs = _numbers(args.procs) if args.procs is not None else ()
    recipe = _recipe(args, max(procs, default=1))
    check_json(args.json)
    arguments = ("--config", args.config, "--rounds", str(args.rounds), *given_overrides(args))
    return ScalingRequest(recipe, arguments, procs, args.json)


def _numbers(text: str) -> tuple[int, ...]:
    words = text.split(",")
    if not all(word.isdecimal() and int(word) > 0 for word in words):
        raise InputError(f"--procs {text}: must be numbers of processes with commas between them, as in 1,2,4")
    return tuple(sorted({1, *map(int, words)}))


def _recipe(args: Namespace, world_size: int) -> Recipe:
    loaded = load_recipe_with_notes(args.config, given_overrides(args))
    check_network(loaded)
    check_micro_batches(loaded.recipe, world_size)
    return loaded.recipe


def _check_at_least(args: Namespace, option: str, least: int) -> None:
    if getattr(args, option) < least:
        raise InputError(f"--{option} {getattr(args, option)}: must be at least {least}")
