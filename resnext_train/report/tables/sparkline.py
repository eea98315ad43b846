"""A curve in a line of text. Imports no torch."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from itertools import pairwise

BLOCKS = "▁▂▃▄▅▆▇█"
"""Levels from low to high, for terminals in UTF-8."""

ASCII = ".:-=+*#@"
"""The same for others."""

_LEAST = 0.1
"""Errors in per cent below this are drawn as this one: zero has no logarithm."""


def sparkline(errors: Sequence[float], columns: int, low: float, high: float, levels: str = BLOCKS) -> str:
    """Return errors in per cent as levels of a logarithmic scale from `low` to `high`, one in a column.

    Where there are more of them than columns, each column is the mean of those that fall into it.
    """
    bottom, top = math.log(max(low, _LEAST)), math.log(max(high, _LEAST))
    step = (top - bottom) / len(levels) or 1.0
    places = (int((math.log(max(error, _LEAST)) - bottom) / step) for error in _fitted(errors, columns))
    return "".join(levels[min(max(place, 0), len(levels) - 1)] for place in places)


def _fitted(values: Sequence[float], columns: int) -> list[float]:
    if len(values) <= columns:
        return list(values)
    ends = [round(len(values) * i / columns) for i in range(columns + 1)]
    return [statistics.fmean(values[start:end]) for start, end in pairwise(ends)]
