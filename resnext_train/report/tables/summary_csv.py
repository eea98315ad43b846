"""summary.csv: a line for each run, in numbers for other programs. Imports no torch."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from resnext_train.report.run_values import EvalResult, RunValues, mapping, number, text
from resnext_train.report.tables.run_tables import whole_of
from resnext_train.report.tables.seed_groups import SeedGroup
from resnext_train.run_dir.result_file import csv_lines, text_in_utf8

Value = str | int | float | None

_FACTS: Mapping[str, Callable[[RunValues], Value]] = {
    "run": lambda run: run.name,
    "folder": lambda run: os.fspath(run.record.folder),
    "status": lambda run: run.status,
    "logged_at": lambda run: _last_logged(run),
    "recipe": lambda run: run.entry.name.removesuffix(".yaml") if run.entry else None,
    "network": lambda run: run.network_title,
    "parameters": lambda run: whole_of(run, "parameters"),
    "multiply_adds": lambda run: whole_of(run, "multiply_adds"),
    "image_size": lambda run: whole_of(run, "size"),
    "classes": lambda run: run.classes,
    "train_images": lambda run: run.whole("train_images"),
    "val_images": lambda run: run.whole("val_images"),
    "seed": lambda run: run.seed,
    "epochs_finished": lambda run: run.epochs_finished,
    "epochs_planned": lambda run: run.epochs_planned,
    "seconds": lambda run: run.seconds,
    "images_per_s": lambda run: run.images_per_s,
    "host": lambda run: run.text("host"),
    "device": lambda run: run.device,
    "cores": lambda run: number(run.fact("cores")),  # containers may have a part of one
    "threads": lambda run: run.whole("threads"),
    "world_size": lambda run: run.whole("world_size"),
    "precision": lambda run: run.text("precision"),
    "git_commit": lambda run: run.text("git_commit"),
    "recipe_sha256": lambda run: run.text("recipe_sha256"),
    "resnext_train_version": lambda run: _version(run, "resnext_train"),
    "torch_version": lambda run: _version(run, "torch"),
    "python_version": lambda run: _version(run, "python"),
    "published_error": lambda run: run.published.error if run.published else None,
}
"""Columns of facts, in their order; those of evaluations and of seeds follow."""

SUMMARY_HEAD = "run,folder,status,"
"""How the file begins, in all versions."""

_EVALUATIONS: Mapping[str, Callable[[RunValues], EvalResult | None]] = {
    "best": lambda run: run.best,
    "final": lambda run: run.final,
    "final_model": lambda run: next(iter(run.last_results), None),
}

_COUNTS: Mapping[str, Callable[[EvalResult], Value]] = {
    "epoch": lambda result: result.epoch,
    "weights": lambda result: result.weights or None,
    "count": lambda result: result.count,
    "top1_correct": lambda result: result.top1_correct,
    "top5_correct": lambda result: result.top5_correct,
    "accuracy": lambda result: result.accuracy,
    "low": lambda result: result.interval[0],
    "high": lambda result: result.interval[1],
}


def summary_csv(runs: Sequence[RunValues], groups: Sequence[SeedGroup]) -> str:
    """Return a head and a line for each run; a value that is not known is empty.

    Shares and intervals are in per cent, times in seconds, moments in ISO 8601. The columns are the same for all runs.
    """
    of_run = {id(run): group for group in groups for run in group.runs}
    lines = [{**_values(run), **_seed_values(of_run[id(run)])} for run in runs]
    return csv_lines([list(lines[0]), *(map(_cell, line.values()) for line in lines)])  # type: ignore[list-item]


def _values(run: RunValues) -> dict[str, Value]:
    values: dict[str, Value] = {name: value(run) for name, value in _FACTS.items()}
    for prefix, find in _EVALUATIONS.items():
        result = find(run)
        values |= {f"{prefix}_{name}": value(result) if result else None for name, value in _COUNTS.items()}
    return values


def _seed_values(group: SeedGroup) -> dict[str, Value]:
    return {
        "seed_group": group.name,
        "seed_group_n": len(group.counted),
        "seed_group_final_mean": group.final.mean,
        "seed_group_final_deviation": group.final.deviation,
        "seed_group_best_mean": group.best.mean,
        "seed_group_best_deviation": group.best.deviation,
    }


def _last_logged(run: RunValues) -> str | None:
    """Return when the run's log was last written."""
    written = run.record.logged_at
    return None if written is None else datetime.fromtimestamp(written, timezone.utc).isoformat(timespec="seconds")


def _version(run: RunValues, name: str) -> str | None:
    return text(mapping(run.fact("versions")).get(name))


def _cell(value: Any) -> Any:
    """Return a value as csv writes it: floats in their fewest digits, nothing for None."""
    return text_in_utf8(value) if isinstance(value, str) else value
