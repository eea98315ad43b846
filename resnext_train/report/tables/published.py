"""The published result of a shipped recipe as a number. Imports no torch."""

from __future__ import annotations

import re
from dataclasses import dataclass

from resnext_train.config import Entry

_NUMBER = re.compile(r"(?:5K-way )?top-1 (error|accuracy) ([\d.]+) %")
"""How the header of a recipe begins that has a top-1 result; the further numbers are of other images or crops."""


_MEAN = re.compile(r"\(the best of \w+ runs, mean ([\d.]+)")
"""How a result goes on that is the best of several runs: a run is to be compared with their mean."""


@dataclass(frozen=True)
class Published:
    """What a paper or its code states of a recipe."""

    recipe: str
    """Name for `--config`."""
    reproduces: str
    """The paper and its table, or the code."""
    result: str
    """The numbers, and how they were found, in words."""
    error: float | None
    """Top-1 error in per cent, the mean where the best of several runs is stated, too; None: none in numbers."""
    by_other_views: bool
    """Whether the error is of ten crops, which the recipe does not evaluate: a run's has another meaning."""


def published_by(entry: Entry | None) -> Published | None:
    """Return what was published for a shipped recipe; None where its header names nothing."""
    if entry is None or not entry.result:
        return None
    found = _NUMBER.match(entry.result)
    error = None
    if found:
        error = float(found[2]) if found[1] == "error" else round(100 - float(found[2]), 10)
    if mean := _MEAN.search(entry.result):
        error = float(mean[1])
    by_ten = "(10 crops" in entry.result and entry.recipe.eval.protocol != "ten_crop"
    return Published(entry.name.removesuffix(".yaml"), entry.reproduces, entry.result, error, by_ten)
