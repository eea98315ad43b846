"""Which runs a sweep consists of: recipes × values of keys × seeds. Imports no torch."""

from __future__ import annotations

import itertools
import json
import math
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resnext_train.checkpoint.resume import check_same_recipe
from resnext_train.config import FolderData, load_recipe_with_notes, name_part, run_name
from resnext_train.errors import InputError
from resnext_train.regular_file import read_regular, user_path
from resnext_train.run_dir.run_paths import RunDir
from resnext_train.training.train_request import train_request

MOST_RUNS = 10_000
"""A sweep of more runs is a mistake in a range."""


@dataclass(frozen=True)
class Axis:
    """A key of the recipe, and the values that it has in turn, as text."""

    key: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class PlannedRun:
    """A run of a sweep."""

    config: str
    overrides: tuple[str, ...]
    folder: RunDir
    procs: int

    def arguments(self) -> list[str]:
        """Return the arguments of `resnext` that start or continue the run."""
        procs = ["--procs", str(self.procs)] if self.procs > 1 else []
        return ["train", "--config", self.config, "--out", str(self.folder.path), *procs, *self.overrides]

    def command(self) -> str:
        """Return its command line for a shell."""
        return shlex.join(["resnext", *self.arguments()])


def read_seeds(text: str) -> tuple[int, ...]:
    """Return the seeds that FIRST:END, a list of numbers with commas, or one number means; END is left out.

    >>> read_seeds("0:3"), read_seeds("1,5")
    ((0, 1, 2), (1, 5))

    Raises:
        InputError: it means none, or one twice.
    """
    if not re.fullmatch(r"\d{1,18}:\d{1,18}|\d{1,18}(,\d{1,18})*", text, re.ASCII):
        raise InputError(f"--seeds {text!r}: write FIRST:END, as in 0:3 for 0, 1 and 2; or numbers, as in 0,1,2")
    first, colon, end = text.partition(":")
    seeds: Sequence[int] = range(int(first), int(end)) if colon else [int(seed) for seed in text.split(",")]
    if not seeds:
        raise InputError(f"--seeds {text}: holds no seed; END is left out, as in 0:3 for 0, 1 and 2")
    _check_count(len(seeds))
    if len(set(seeds)) < len(seeds):
        raise InputError(f"--seeds {text}: has a seed twice")
    return tuple(seeds)


def read_axis(text: str) -> Axis:
    """Return the key and the values of KEY=VALUE,VALUE,...; commas in brackets belong to a value.

    >>> read_axis("schedule.milestones=[5,8],[6,9]").values
    ('[5,8]', '[6,9]')

    Raises:
        InputError: there is no key, or no value.
    """
    key, equals, values = text.partition("=")
    if not (equals and "." in key):
        raise InputError(f"--set {text!r}: write section.key=VALUE,VALUE, as in --set optimizer.lr=0.05,0.1")
    return Axis(key, tuple(_split(values)))


def _split(values: str) -> Iterator[str]:
    """Yield the values between commas that are in no bracket and no quotes."""
    start = depth = 0
    quote = ""
    for place, letter in enumerate(values):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'":
            quote = letter
        elif letter in "[{":
            depth += 1
        elif letter in "]}":
            depth -= 1
        elif letter == "," and depth == 0:
            yield values[start:place]
            start = place + 1
    yield values[start:]


def plan_sweep(
    configs: Sequence[str],
    axes: Sequence[Axis],
    seeds: Sequence[int],
    overrides: Sequence[str],
    folder: Path,
    procs: int = 1,
    starts: bool = False,
) -> list[PlannedRun]:
    """Return all runs of a sweep: each recipe with each value of every axis and each seed, a folder below `folder`.

    A run is named by its recipe and what differs among the runs: `resnext50_32x4d-lr0.05-seed1`. A key with one value
    is an override. No seeds: each recipe has its own. Where the sweep `starts` here, its images must be here.

    Raises:
        InputError: there are too many; two have the same name; a recipe or a value has a mistake, a folder holds a
            run of another recipe, or the images are not there.
    """
    if twice := _first_twice([axis.key for axis in axes]):
        raise InputError(f"--set: {twice} is there twice; give all its values once, as in {twice}=A,B")
    if seeds and any(axis.key == "train.seed" for axis in axes):
        raise InputError("--set train.seed: give the seeds by --seeds alone")
    overrides = [*overrides, *(f"{axis.key}={axis.values[0]}" for axis in axes if len(axis.values) == 1)]
    choices = [[(axis.key, value) for value in axis.values] for axis in axes if len(axis.values) > 1]
    of_seeds = [[("train.seed", str(seed))] for seed in seeds] or [[]]
    _check_count(math.prod(map(len, (of_seeds, configs, *choices))))
    labels = _labels([axis.key for axis in axes])
    runs = []
    # The first seed of all recipes comes first, so that a sweep that is cut off has something of each.
    for seed, config, values in itertools.product(of_seeds, configs, itertools.product(*choices)):
        chosen = [*values, *seed]
        name = "".join((run_name(config), *(f"-{labels[key]}{name_part(value)}" for key, value in chosen)))
        settings = (*overrides, *(f"{key}={value}" for key, value in chosen))
        runs.append(PlannedRun(config, settings, RunDir(folder / name), procs))
    if same := _first_twice([str(run.folder.path) for run in runs]):
        raise InputError(f"two runs of the sweep would be {same}; give other recipes' names, or each value once")
    for run in runs:
        _check(run, starts)
    return runs


def _check(run: PlannedRun, starts: bool) -> None:
    """Check a run as `resnext train` does; one that is done needs no checkpoints, which may have been removed."""
    done = is_done(run.folder) and run.folder.recipe.is_file()
    loaded = load_recipe_with_notes(run.config, run.overrides)
    request = train_request(loaded, run.folder, "auto", run.procs, dry_run=done)
    if done:
        check_same_recipe(run.folder, request.recipe)
    elif starts and isinstance(data := request.recipe.data, FolderData):
        if data.root is None:
            raise InputError("data.root is not set; name the folder that holds train/ and val/, as by --data DIR")
        if not user_path(data.root).is_dir():
            raise InputError(f"data folder {data.root} not found; set data.root to one that holds train/ and val/")


def is_done(folder: RunDir) -> bool:
    """Return whether the run in a folder has come to its end."""
    try:
        state: Any = json.loads(read_regular(folder.path / "state.json", 1 << 20))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(state, dict) and state.get("status") == "done"


def _check_count(count: int) -> None:
    if count > MOST_RUNS:
        raise InputError(f"the sweep has {count} runs, over {MOST_RUNS}; check --seeds and --set")


def _labels(keys: Sequence[str]) -> dict[str, str]:
    """Return for each key what names have of it: its last part, or all of it where another one ends the same."""
    last = [key.rpartition(".")[2] for key in keys]
    own = {key: name_part(key) if last.count(part) > 1 else part for key, part in zip(keys, last, strict=True)}
    return {**own, "train.seed": "seed"}


def _first_twice(texts: Sequence[str]) -> str | None:
    return next((text for n, text in enumerate(texts) if text in texts[:n]), None)
