"""Histograms that add up, and the distances between them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from raysys.pipelines.histogram import (
    Daily,
    Histogram,
    ks,
    ks_limit,
    psi,
    psi_limit,
    wasserstein,
)

NUMBERS = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=200)
RANDOM = np.random.default_rng(1)


@settings(max_examples=60, deadline=None)
@given(NUMBERS, NUMBERS)
def test_the_histogram_of_two_parts_is_the_sum_of_theirs(
    one: list[float], other: list[float]
) -> None:
    bins = Histogram.over(np.array(one))
    merged = bins.merge(bins.empty().add(np.array(other)))
    assert merged.total == len(one) + len(other)
    np.testing.assert_array_equal(merged.counts, bins.add(np.array(other)).counts)
    assert psi(bins, bins) == ks(bins, bins) == wasserstein(bins, bins) == 0
    assert psi(bins, merged) >= 0
    assert 0 <= ks(bins, merged) <= 1


def test_what_is_no_number_is_left_out() -> None:
    assert Histogram.over(np.array([1.0, np.nan, 2.0])).add(np.array([np.inf])).total == 2
    with pytest.raises(ValueError, match="values"):
        Histogram.over(np.array([np.nan]))


def test_few_values_get_a_bin_each_and_unseen_ones_another() -> None:
    bins = Histogram.over(np.array([0, 0, 0, 1]))
    assert bins.counts.tolist() == [0, 3, 1, 0]
    assert bins.add(np.array([-7, 5, 5])).counts.tolist() == [1, 3, 1, 2]
    constant = Histogram.over(np.zeros(500))
    assert psi(constant, constant.empty().add(np.ones(500))) > 1


def test_the_distance_is_that_of_the_values_themselves() -> None:
    one, other = RANDOM.normal(0, 1, 5000), RANDOM.normal(0.7, 1, 5000)
    bins = Histogram.even(one, 200)
    found = wasserstein(bins, bins.empty().add(other))
    assert found == pytest.approx(stats.wasserstein_distance(one, other), abs=0.02)
    assert ks(bins, bins.empty().add(other)) == pytest.approx(
        stats.ks_2samp(one, other).statistic, abs=0.02
    )
    assert wasserstein(bins, bins.empty()) == 0


@pytest.mark.parametrize("live", [60, 300, 5000])
def test_samples_of_one_distribution_stay_below_the_thresholds(live: int) -> None:
    bins = Histogram.over(RANDOM.normal(size=1000))
    for _ in range(200):
        other = bins.empty().add(RANDOM.normal(size=live))
        assert psi(bins, other) < psi_limit(bins, other, 1e-5)
        assert ks(bins, other) < ks_limit(bins, other, 1e-5)


def test_a_threshold_falls_with_the_sample_to_what_matters() -> None:
    bins = Histogram.over(RANDOM.normal(size=10_000))
    limits = [
        psi_limit(bins, bins.empty().add(RANDOM.normal(size=n)), 1e-4) for n in (50, 500, 5000)
    ]
    assert limits[0] > limits[1] >= limits[2] == 0.2


def test_any_run_of_days_is_a_histogram() -> None:
    bins = Histogram.over(np.arange(4.0))
    daily = Daily(bins, 3)
    daily.add(np.array([0, 1, 1, 2, 3, -1, 0]), np.array([0.0, 1, 1, 2, 3, 3, np.nan]))
    assert daily.window(0, 3).total == 4
    assert daily.window(1, 1).counts.tolist() == [0, 0, 2, 0, 0, 0]
