"""A run as its folder tells it: recipe, log, summary, evaluation. Reads files only; imports no torch."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from resnext_train.config import Recipe, read_yaml, recipe_from_dict
from resnext_train.errors import InputError
from resnext_train.regular_file import read_regular
from resnext_train.run_dir.jsonl_sink import read_log
from resnext_train.run_dir.run_lock import holder_of
from resnext_train.run_dir.run_paths import RunDir
from resnext_train.run_dir.sink import Event

EVALUATION = "evaluation"
"""The folder in a run folder that holds what `resnext eval --out` wrote of it."""

_MAX_BYTES = 1 << 30
"""Limit of a JSON file."""


@dataclass(frozen=True)
class RunRecord:
    """What is known of a run, whether it goes on or has ended."""

    folder: Path
    name: str
    """The folder below the one that all runs of a report share."""
    values: Mapping[str, Any]
    """The resolved recipe by section and key, as stored; empty where it cannot be read."""
    events: tuple[Event, ...]
    """The log in its order; each step and epoch is there once."""
    summary: Mapping[str, Any]
    """The content of summary.json; empty while there is none."""
    status: str
    """running, done, preempted, failed; `killed` where it neither ended nor runs; `new` where nothing is known."""
    step: int
    """Finished steps, as state.json has them."""
    problems: tuple[str, ...] = field(default=())
    """What could not be read, a sentence each."""

    @cached_property
    def recipe(self) -> Recipe | None:
        """The recipe; None where this version does not understand it."""
        try:
            return recipe_from_dict(dict(self.values), str(self.folder))
        except InputError:
            return None

    @property
    def evaluation(self) -> Path:
        """The folder of the tables that `resnext eval` wrote of the run; it need not be there."""
        return self.folder / EVALUATION

    @cached_property
    def evaluation_result(self) -> Mapping[str, Any]:
        """The content of that folder's result.json; empty where there is none that can be read."""
        return _read_json(self.evaluation / "result.json", [])

    @cached_property
    def start(self) -> Mapping[str, Any]:
        """The last start event: world size, device, precision, host, versions, command; empty where there is none."""
        return next((event for event in reversed(self.events) if event["event"] == "start"), {})

    @cached_property
    def epochs(self) -> tuple[Event, ...]:
        """The epoch events: train_loss, train_top1, and of evaluated ones val_count, val_top1_correct and so on."""
        return tuple(event for event in self.events if event["event"] == "epoch")

    @cached_property
    def steps(self) -> tuple[Event, ...]:
        """The step events: lr, images_per_s, data_wait, memory_mb and so on."""
        return tuple(event for event in self.events if event["event"] == "step")

    @property
    def last(self) -> Mapping[str, Any] | None:
        """The last evaluation: epoch, count, top1, top1_correct, top5, top5_correct; and `ema` with the same keys."""
        last = self.summary.get("last")
        return last if isinstance(last, Mapping) else None

    @property
    def seed(self) -> int | None:
        """The recipe's seed."""
        train = self.values.get("train")
        seed = train.get("seed") if isinstance(train, Mapping) else None
        return seed if isinstance(seed, int) else None

    @property
    def logged_at(self) -> float | None:
        """When the run last logged, in seconds since 1970; None where it never has."""
        try:
            return RunDir(self.folder).log.stat().st_mtime
        except OSError:
            return None


def find_runs(paths: Iterable[str | Path]) -> list[Path]:
    """Return the run folders that `paths` are, or hold up to four levels below, by path.

    Each is there once, by whatever links and names it was found.

    Raises:
        InputError: a path is no folder, or holds no run.
        OSError: this user may not look into a path.
    """
    found: dict[Path, Path] = {}
    for path in map(Path, paths):
        if not path.is_dir():
            raise InputError(f"{path} is no folder; name a run folder, or one that holds some")
        runs = [path] if is_run(path) else _below(path)
        if not runs:
            raise InputError(
                f"{path} holds no run: no folder up to {_DEEPEST} levels below it has a recipe.yaml or a log.jsonl"
            )
        for run in runs:
            found.setdefault(run.resolve(), run)
    return list(found.values())


def is_run(path: Path) -> bool:
    """Return whether a folder is a run folder: one with a recipe or a log."""
    files = (RunDir(path).recipe, RunDir(path).log)
    return any(map(os.path.isfile, files))  # unlike Path.is_file: False where this user may not look into it


_DEEPEST = 4
"""Folders are looked into so far below the given one: runs/ has runs/cifar/resnet20, and a sweep one level more."""


def _below(path: Path, depth: int = 1) -> list[Path]:
    try:
        children = sorted(child for child in path.iterdir() if child.is_dir() and not child.is_symlink())
    except OSError:  # not permitted: nothing of it can be shown
        if depth == 1:
            raise
        return []
    runs: list[Path] = []
    for child in children:
        runs += [child] if is_run(child) else _below(child, depth + 1) if depth < _DEEPEST else []
    return runs


def read_runs(paths: Iterable[str | Path]) -> list[RunRecord]:
    """Return the records of all runs that `paths` are or hold, named by what their folders do not share.

    Raises:
        InputError: see `find_runs`.
    """
    folders = find_runs(paths)
    return [read_run(folder, name) for folder, name in zip(folders, _names(folders), strict=True)]


def _names(folders: list[Path]) -> list[str]:
    parts = [folder.resolve().parts for folder in folders]
    shared = 0
    while len(set(parts)) > 1 and all(len(p) > shared + 1 for p in parts) and len({p[shared] for p in parts}) == 1:
        shared += 1
    return ["/".join(p[shared:]) if len(parts) > 1 else p[-1] for p in parts]


def read_run(folder: Path, name: str | None = None) -> RunRecord:
    """Return the record of the run in `folder`. What is not there or damaged is left out, and said in `problems`."""
    run, problems = RunDir(folder), []
    values: Mapping[str, Any] = {}
    try:
        values = read_yaml(run.recipe)
    except InputError as error:
        problems.append(str(error))
    events: list[Event] = []
    try:
        log = read_log(run.log)
        events = log.events
        if log.damaged:
            problems.append(f"{run.log} has {log.damaged} damaged lines, which are left out")
    except OSError as error:
        problems.append(f"{run.log} cannot be read: {error.strerror or error}")
    state, summary = _read_json(folder / "state.json", problems), _read_json(folder / "summary.json", problems)
    step = state.get("step")
    return RunRecord(
        folder=folder,
        name=name or folder.resolve().name,
        values=values,
        events=tuple(events),
        summary=summary,
        status=_status(run, state.get("status")),
        step=step if isinstance(step, int) else 0,
        problems=tuple(problems),
    )


def _status(run: RunDir, stated: Any) -> str:
    if stated != "running":
        return stated if stated in ("done", "preempted", "failed") else "new"
    return "running" if holder_of(run.lock_file) else "killed"


def _read_json(path: Path, problems: list[str]) -> Mapping[str, Any]:
    """Return the object in a JSON file; an empty one where there is none."""
    try:
        value = json.loads(read_regular(path, _MAX_BYTES))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, RecursionError) as error:
        problems.append(f"{path} cannot be read: {error}")
        return {}
    if not isinstance(value, dict):
        problems.append(f"{path} holds no object")
        return {}
    return value
