"""Intervals, exact sums and calibration, against the literature and brute force."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from helpers.image_results import chunked, results_of
from resnext_train.evaluation.calibration import Calibration
from resnext_train.evaluation.exact_sum import ExactSum
from resnext_train.evaluation.image_results import ImageResults
from resnext_train.evaluation.wilson import wilson_interval


@pytest.mark.parametrize(
    ("correct", "count", "low", "high"),
    [(81, 263, 25.53, 36.62), (15, 148, 6.24, 16.05), (0, 20, 0.0, 16.11), (1, 29, 0.61, 17.18)],
)
def test_wilsons_interval_is_that_of_newcombe(correct: int, count: int, low: float, high: float) -> None:
    """Statistics in Medicine 17 (1998) 857, table I, method 3."""
    assert wilson_interval(correct, count) == pytest.approx((low, high), abs=0.005)


@pytest.mark.parametrize("count", [1, 2, 50, 50_000])
def test_the_ends_of_the_interval_solve_its_equation(count: int) -> None:
    """(p - k / n)^2 = z^2 p (1 - p) / n, in exact arithmetic."""
    z = Fraction("1.959963984540054")
    for correct in {0, 1, count // 2, count}:
        for end in wilson_interval(correct, count):
            p = Fraction(end) / 100
            assert float((p - Fraction(correct, count)) ** 2 - z * z * p * (1 - p) / count) == pytest.approx(
                0, abs=1e-15
            )


def test_all_none_and_nothing() -> None:
    for count in range(1, 200):
        assert wilson_interval(0, count)[0] == 0.0
        assert wilson_interval(count, count)[1] == 100.0
    assert wilson_interval(0, 0) == (0.0, 100.0)
    low, high = wilson_interval(20, 50)
    assert wilson_interval(30, 50) == pytest.approx((100 - high, 100 - low))


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False, max_value=1e300, min_value=-1e300)))
def test_sums_are_those_of_fsum(numbers: list[float]) -> None:
    total = ExactSum()
    for chunk in np.array_split(np.array(numbers), 3):
        total.add(chunk)
    assert total.value == math.fsum(numbers)
    assert total.exact == sum(map(Fraction, numbers))


@pytest.mark.parametrize(
    ("numbers", "value"), [([1.0, math.inf], math.inf), ([math.inf, -math.inf], math.nan), ([math.nan, 1.0], math.nan)]
)
def test_sums_are_no_number_where_a_term_is_none(numbers: list[float], value: float) -> None:
    total = ExactSum()
    for number in numbers:
        total.add(np.array([number]))
    assert total.value == pytest.approx(value, nan_ok=True)


def confident(confidences: list[float], correct: list[bool]) -> ImageResults:
    """Results of images with these probabilities of the best class."""
    n = len(confidences)
    zeros: NDArray[np.int64] = np.zeros((n, 1), np.int64)
    ranks = 1 - np.array(correct, np.int64)
    scores = np.array(confidences)[:, None]
    return ImageResults(np.arange(n), zeros[:, 0], ranks, np.full(n, 0.5), zeros, scores)


def test_the_calibration_error_of_torchmetrics_example() -> None:
    """Its documentation of MulticlassCalibrationError, n_bins=3, norm='l1'."""
    measure = Calibration(bins=3)
    measure.add(confident([0.55, 0.55, 0.60, 0.90], [False, False, True, True]))
    assert measure.error == pytest.approx(20.0)
    assert [(b.count, b.correct) for b in measure.bins()] == [(0, 0), (3, 1), (1, 1)]


def brute_force(results: ImageResults, bins: int) -> float:
    """Equation 3 of Guo et al., image by image and in fractions."""
    error = Fraction()
    for m in range(1, bins + 1):
        inside = [
            (Fraction(p), rank == 0)
            for p, rank in zip(results.scores[:, 0].tolist(), results.ranks.tolist(), strict=True)
            if (m - 1) / bins < p <= m / bins
        ]
        if inside:
            accuracy = Fraction(sum(right for _, right in inside), len(inside))
            confidence = sum((p for p, _ in inside), Fraction()) / len(inside)
            error += Fraction(len(inside), len(results.ranks)) * abs(accuracy - confidence)
    return float(100 * error)


def test_the_calibration_error_is_that_of_the_paper_whatever_the_chunks() -> None:
    results = results_of(3000, classes=12, seed=1)
    seen: list[dict[str, Any]] = []
    for sizes in ([3000], [1, 2, 2997], [64] * 46 + [56], [7] * 428 + [4]):
        measure = Calibration()
        for chunk in chunked(results, sizes):
            measure.add(chunk)
        seen.append(measure.to_dict())
    assert all(one == seen[0] for one in seen), "to the last bit"
    assert seen[0]["error"] == brute_force(results, 15)
    assert seen[0]["loss"] == math.fsum(results.losses.tolist()) / 3000
    assert len(seen[0]["bins"]) == 15
    assert sum(b["count"] for b in seen[0]["bins"]) == 3000


def test_edges_belong_to_the_bin_below() -> None:
    measure = Calibration()
    measure.add(confident([m / 15 for m in range(1, 16)], [True] * 15))
    assert [b.count for b in measure.bins()] == [1] * 15
    assert [b.confidence for b in measure.bins()] == [m / 15 for m in range(1, 16)]


def test_a_diverged_network_has_no_calibration() -> None:
    measure = Calibration()
    assert math.isnan(measure.error)
    assert math.isnan(measure.loss)
    measure.add(confident([math.nan, 0.5], [False, True])._replace(losses=np.array([math.inf, 1.0])))
    assert math.isnan(measure.error)
    assert measure.loss == math.inf
    assert [(b.count, b.confidence) for b in measure.bins() if b.count] == [(1, 0.5), (1, None)]
