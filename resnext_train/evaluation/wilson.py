"""The uncertainty of an accuracy that was counted on some images. Imports no torch."""

from __future__ import annotations

import math

_Z = 1.959963984540054
"""The 97.5 % quantile of the standard normal distribution."""


def wilson_interval(correct: int, count: int) -> tuple[float, float]:
    """Return the 95 % interval of an accuracy, in per cent, by Wilson's score method (JASA 22, 1927).

    It holds the accuracy on ever more such images in 95 of 100 evaluations. Unlike the normal approximation, it stays
    within 0 to 100 and has a width where all or none are correct. Without images it is 0 to 100.
    """
    if not count:
        return 0.0, 100.0
    share, z2 = correct / count, _Z * _Z / count
    middle = (share + z2 / 2) / (1 + z2)
    half = math.sqrt(z2 * (share * (1 - share) + z2 / 4)) / (1 + z2)
    high = 100.0 if correct == count else 100 * (middle + half)  # which rounding would miss
    return 100 * (middle - half), high
