"""McNemar's test and Holm's correction, against scipy and arithmetic."""

from __future__ import annotations

from fractions import Fraction
from math import comb

import numpy as np
import pytest
from scipy.stats import binomtest

from resnext_train.report.tables.mcnemar import holm, mcnemar_p


@pytest.mark.parametrize("n", [1, 2, 7, 20, 131, 1000, 5000])
def test_p_is_scipys(n: int) -> None:
    rng = np.random.default_rng(n)
    counts = {*rng.integers(0, n + 1, 15).tolist(), *rng.binomial(n, 0.5, 25).tolist(), 0, n // 2, n}
    for first in counts:
        expected = binomtest(first, n).pvalue
        if expected > 1e-300:
            assert mcnemar_p(first, n - first) == pytest.approx(expected, rel=1e-9), first


def test_p_of_fifty_thousand_images_is_exact() -> None:
    n, fewer = 3000, 1400
    exact = 2 * sum(Fraction(comb(n, k), 2**n) for k in range(fewer + 1))
    assert mcnemar_p(fewer, n - fewer) == pytest.approx(float(exact), rel=1e-12)
    assert mcnemar_p(24_800, 25_200) == pytest.approx(binomtest(24_800, 50_000).pvalue, rel=1e-9)


def test_p_by_hand() -> None:
    assert mcnemar_p(0, 5) == 2 / 32
    assert mcnemar_p(5, 0) == 2 / 32
    assert mcnemar_p(1, 5) == 2 * (1 + 6) / 64
    assert mcnemar_p(0, 0) == 1
    assert mcnemar_p(4, 4) == 1
    assert mcnemar_p(4, 5) == 1  # both tails together are everything
    assert mcnemar_p(0, 50_000) == 0


def test_holm_by_hand() -> None:
    """The smallest of four is multiplied by 4, the next by 3, and so on; none is below one before it."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.5]) == pytest.approx([1.0, 1.0])
    assert holm([0.2]) == [0.2]
    assert holm([]) == []
