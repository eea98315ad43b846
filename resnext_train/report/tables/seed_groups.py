"""Runs of one recipe with several seeds: mean and standard deviation of their accuracies. Imports no torch."""

from __future__ import annotations

import os
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from resnext_train.report.run_values import EvalResult, RunValues
from resnext_train.report.tables import number_texts as texts
from resnext_train.report.tables.run_tables import without_empty_columns
from resnext_train.report.tables.table import Column, Table


class Spread(NamedTuple):
    """Mean and sample standard deviation (n - 1) of accuracies in per cent; None where there are too few."""

    mean: float | None
    deviation: float | None


@dataclass(frozen=True)
class SeedGroup:
    """Runs whose recipes differ in nothing but the seed and where and how they were computed."""

    name: str
    runs: tuple[RunValues, ...]

    @property
    def counted(self) -> tuple[RunValues, ...]:
        """The finished runs with an evaluation; of those with one seed the first, as the others repeat it."""
        first: dict[int | None, RunValues] = {}
        for run in self.runs:
            if run.is_done and run.final is not None:
                first.setdefault(run.seed, run)
        return tuple(first.values())

    @property
    def final(self) -> Spread:
        """Of the accuracies of the last evaluations."""
        return _spread([run.final for run in self.counted])

    @property
    def best(self) -> Spread:
        """Of the accuracies of the best evaluations."""
        return _spread([run.best for run in self.counted])


def _spread(results: Sequence[EvalResult | None]) -> Spread:
    values = [result.accuracy for result in results if result is not None]
    mean = statistics.fmean(values) if values else None
    return Spread(mean, statistics.stdev(values) if len(values) > 1 else None)


def seed_groups(runs: Sequence[RunValues]) -> list[SeedGroup]:
    """Return the groups in the order of their first runs; a run alone is one, too."""
    found: dict[tuple[str, ...], list[RunValues]] = {}
    for run in runs:
        found.setdefault(run.identity if run.record.values else ("no recipe", run.name), []).append(run)
    groups = [(_name(members), tuple(members)) for members in found.values()]
    names = [name for name, _ in groups]
    return [SeedGroup(name if names.count(name) == 1 else members[0].name, members) for name, members in groups]


def _name(members: Sequence[RunValues]) -> str:
    """Return what the runs' names begin with, or their recipe's name."""
    if len(members) == 1:
        return members[0].name
    shared = os.path.commonprefix([run.name for run in members])  # noqa: RUF071  of texts, no paths
    shared = re.sub(r"[/_.=-]*(seed[/_.=-]*\d*)?$", "", shared)
    recipe = members[0].entry.name.removesuffix(".yaml") if members[0].entry else ""
    return shared or recipe or members[0].name


def seeds_table(groups: Sequence[SeedGroup]) -> Table | None:
    """Return means and deviations over seeds; None where no recipe has several runs."""
    if all(len(group.runs) == 1 for group in groups):
        return None
    caption = (
        "Runs of a group differ only in train.seed, and in where and how they were computed. Accuracies in per cent: "
        "mean ± sample standard deviation (n \N{MINUS SIGN} 1) over n finished runs with a seed each; of one run there "
        "is no deviation. Runs that have not finished, or repeat a seed, are left out. The best accuracy of a run is "
        "chosen on the images on which it is counted; the final one is not."
    )
    columns = (
        *(Column("Group"), Column("n", numeric=True), Column("Seeds")),
        *(Column("Final accuracy", numeric=True), Column("Best accuracy", numeric=True)),
        *(Column("Published error", numeric=True), Column("Mean final error \N{MINUS SIGN} published", numeric=True)),
        Column("Left out", numeric=True),
    )
    return without_empty_columns(Table("seeds", "Seeds", caption, columns, tuple(map(_row, groups))))


def _row(group: SeedGroup) -> tuple[str, ...]:
    counted, published = group.counted, group.runs[0].published
    seeds = [str(seed) for seed in sorted(run.seed for run in counted if run.seed is not None)]
    error = published.error if published else None
    mean, by_other_views = group.final.mean, published is not None and published.by_other_views
    return (
        *(group.name, str(len(counted)), ", ".join(seeds)),
        *(texts.spread(*group.final), texts.spread(*group.best), texts.percent(error)),
        texts.difference(None if mean is None or error is None or by_other_views else 100 - mean - error),
        str(len(group.runs) - len(counted)),
    )
