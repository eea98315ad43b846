"""Exact tests of whether two networks differ on the same images. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def mcnemar_p(only_first: int, only_second: int) -> float:
    """Return the two-sided p-value of McNemar's exact test (Psychometrika 12, 1947).

    `only_first` images were recognised by the first network alone, `only_second` by the second alone. Were both
    networks equally good, each of these n images would be either with probability 1/2: p is the probability of a
    split at least as uneven, that of twice a tail of the binomial distribution. It is right to some 1e-12 of itself;
    below 1e-300 it may be 0.
    """
    n, fewer = only_first + only_second, min(only_first, only_second)
    if 2 * fewer >= n:  # also without such images
        return 1.0
    largest = math.comb(n, fewer) / (1 << n)  # the exact quotient of whole numbers, rounded once
    places = np.arange(fewer, 0, -1, dtype=np.float64)
    ratios = np.cumprod(places / (n - places + 1))  # of C(n, k - 1) to C(n, k), for k down from `fewer`
    return min(1.0, 2 * largest * (1 + float(ratios.sum())))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number by Holm's method (Scand. J. Statist. 6, 1979), in their order.

    Among those below a bound there is one that is so by chance with a probability of at most the bound.
    """
    corrected = [1.0] * len(p_values)
    largest = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = largest
    return corrected
