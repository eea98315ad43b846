"""Runs compared image by image: McNemar's test for pairs of them. Imports no torch."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np

from resnext_train.errors import InputError
from resnext_train.report.run_values import RunValues, whole
from resnext_train.report.tables import number_texts as texts
from resnext_train.report.tables.mcnemar import holm, mcnemar_p
from resnext_train.report.tables.prediction_reader import Recognised, read_recognised
from resnext_train.report.tables.table import Column, Table

ALL_PAIRS = 8
"""Of up to so many runs on the same images all pairs are tested: 28."""

NEXT = 10
"""Of more, the best one is tested against so many that follow it."""


@dataclass(frozen=True)
class Pair:
    """Two runs on the same images: how many each recognised."""

    first: str
    second: str
    both: int
    only_first: int
    only_second: int
    neither: int

    @property
    def p(self) -> float:
        """That of McNemar's exact test."""
        return mcnemar_p(self.only_first, self.only_second)


def pair_of(first: str, second: str, a: Recognised, b: Recognised) -> Pair:
    """Count the images of two runs, which are the same ones."""
    both, either = int(np.sum(a.is_correct & b.is_correct)), int(np.sum(a.is_correct | b.is_correct))
    only_first, only_second = int(np.sum(a.is_correct)) - both, int(np.sum(b.is_correct)) - both
    return Pair(first, second, both, only_first, only_second, len(a.is_correct) - either)


def comparison_table(runs: Sequence[RunValues]) -> Table | None:
    """Return McNemar's test of pairs of runs with predictions of the same images.

    None where there is no pair; but where files of predictions cannot be read, a table without rows says so.
    """
    pairs: list[Pair] = []
    unread: list[str] = []
    left_out, is_best_alone = 0, False
    predicted = [run for run in runs if os.path.isfile(_file_of(run))]  # noqa: PTH113  False where it may not be seen
    for candidates in _by_size(predicted if len(predicted) > 1 else []):
        chosen, dropped = _near_the_best(candidates)
        left_out += dropped
        for alike in _on_the_same_images(chosen, unread):
            pairs += _pairs(alike)
            is_best_alone |= len(alike) > ALL_PAIRS
    if not pairs and not unread:
        return None
    columns = (
        *(Column("First"), Column("Second"), Column("Both right", numeric=True, optional=True)),
        *(Column("Only first", numeric=True), Column("Only second", numeric=True)),
        Column("Both wrong", numeric=True, optional=True),
        *(Column("p", numeric=True), Column("p (Holm)", numeric=True)),
    )
    corrected = holm([pair.p for pair in pairs])
    rows = tuple(_row(pair, p) for pair, p in zip(pairs, corrected, strict=True))
    tested = {name for pair in pairs for name in (pair.first, pair.second)}
    caption = _caption(len(pairs), is_best_alone, left_out, unread)
    caption = " ".join((caption, *_other_epochs([run for run in predicted if run.name in tested])))
    return Table("mcnemar", "Differences image by image", caption, columns, rows)


def _caption(pairs: int, is_best_alone: bool, left_out: int, unread: Sequence[str]) -> str:
    reasons = [f"Left out: {why}." for why in unread]
    if not pairs:
        return " ".join(("No two runs have predictions of the same images that can be read.", *reasons))
    caption = (
        "McNemar's exact test, two-sided, on the images of evaluation/predictions.csv: whether two networks differ in "
        "accuracy by more than the chance of these images explains. It speaks of the two trained networks, not of "
        "their recipes: another seed gives another network. "
    )
    if pairs > 1:
        caption += f"p is that of a pair alone, p (Holm) is corrected for all {pairs} pairs by Holm's method."
    else:
        caption += "With one pair there is nothing to correct for."
    if is_best_alone:
        caption += (
            f" Of more than {ALL_PAIRS} runs on the same images only the most accurate is tested, against up to {NEXT} "
            "that follow it; p does not hold that it was chosen by its accuracy."
        )
    if left_out:
        caption += f" Less accurate runs on as many images that are left out: {left_out}."
    return " ".join((caption, *reasons))


def _other_epochs(runs: Sequence[RunValues]) -> list[str]:
    """Return a sentence for each run whose predictions are not of its last evaluation's weights."""
    found = [(run.name, whole(run.record.evaluation_result.get("epoch")), run.final) for run in runs]
    return [
        f"The predictions of {name} are of epoch {epoch}, not of the last, {final.epoch}."
        for name, epoch, final in found
        if epoch is not None and final is not None and final.epoch not in (None, epoch)
    ]


def _file_of(run: RunValues) -> Path:
    return run.record.evaluation / "predictions.csv"


def _by_size(runs: Sequence[RunValues]) -> list[list[RunValues]]:
    """Return runs by how many images they were evaluated on, so that only those are read that may compare."""
    found: dict[int | None, list[RunValues]] = {}
    for run in runs:
        found.setdefault(run.best.count if run.best else None, []).append(run)
    return list(found.values())


def _near_the_best(runs: list[RunValues]) -> tuple[list[RunValues], int]:
    """Return the runs to read, and how many are left out."""
    if len(runs) <= ALL_PAIRS:
        return runs, 0
    ordered = sorted(runs, key=lambda run: run.best.top1_correct if run.best else -1, reverse=True)
    return ordered[: NEXT + 1], max(0, len(runs) - NEXT - 1)


Read = tuple[str, Recognised]


def _on_the_same_images(runs: Sequence[RunValues], unread: list[str]) -> Iterator[list[Read]]:
    """Yield the runs' predictions by their images and labels; add to `unread` why some have none."""
    found: dict[str, list[Read]] = {}
    for run in runs:
        try:
            read = read_recognised(_file_of(run))
        except InputError as error:
            unread.append(str(error))
        else:
            found.setdefault(read.images, []).append((run.name, read))
    yield from found.values()


def _pairs(runs: Sequence[Read]) -> Iterator[Pair]:
    """Yield all pairs of a few runs; of many those of the most accurate with each other one."""
    ordered = sorted(runs, key=lambda run: int(run[1].is_correct.sum()), reverse=True)
    chosen = combinations(runs, 2) if len(runs) <= ALL_PAIRS else ((ordered[0], other) for other in ordered[1:])
    for (first, a), (second, b) in chosen:
        yield pair_of(first, second, a, b)


def _row(pair: Pair, corrected: float) -> tuple[str, ...]:
    counts = (pair.both, pair.only_first, pair.only_second, pair.neither)
    p_values = (texts.probability(pair.p), texts.probability(corrected))
    return (pair.first, pair.second, *map(texts.whole_number, counts), *p_values)
