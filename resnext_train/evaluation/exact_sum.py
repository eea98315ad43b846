"""Sums of floating-point numbers that do not depend on their order. Imports no torch."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

_BITS = 53
"""Bits of a float64's mantissa."""

_HALF = 26
"""Of which so many are summed apart, so that an int64 holds the sums of 2**37 of them."""


class ExactSum:
    """The sum of float64 numbers, exact: the same however they are ordered and cut into chunks."""

    def __init__(self) -> None:
        self._sum = Fraction()
        self._not_finite = 0.0

    def add(self, numbers: NDArray[np.floating[Any]]) -> None:
        """Add numbers of any shape."""
        numbers = np.asarray(numbers, np.float64).ravel()
        finite = np.isfinite(numbers)
        if not finite.all():
            with np.errstate(invalid="ignore"):  # the sum of both infinities is NaN
                self._not_finite += float(numbers[~finite].sum())
            numbers = numbers[finite]
        mantissas, exponents = np.frexp(numbers)
        whole = np.ldexp(mantissas, _BITS).astype(np.int64)
        high, low = whole >> _HALF, whole & ((1 << _HALF) - 1)
        for exponent in np.unique(exponents).tolist():
            at = exponents == exponent
            total = (int(high[at].sum()) << _HALF) + int(low[at].sum())
            self._sum += total * Fraction(2) ** (exponent - _BITS)

    @property
    def exact(self) -> Fraction:
        """The sum of the finite numbers."""
        return self._sum

    @property
    def value(self) -> float:
        """The sum, rounded once; NaN or infinity where such a number was added."""
        return float(self._sum) + self._not_finite
