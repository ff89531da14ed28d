"""What is usual for an hour of a series: season, hour of the day, how far weeks differ by nature; no database.

Hours of one series depend on each other: a warm week is no drift. What two samples of independent
rows may differ by is known, what two weeks may differ by is not, so it is measured on the reference
itself, after season and hour of the day were taken out.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from raysys.pipelines.histogram import Daily, Histogram, wasserstein

DAY_HOURS = 24
YEAR_HOURS = 8766
LEAST_DAYS = 330  # less tells no season from a drift
LEAST_SHARE = 0.5  # of a window's hours
BINS = 60
SLACK = 1.25  # beyond the farthest of the reference's own windows

Numbers = NDArray[Any]


class Climate(NamedTuple):
    """A linear rule of what a value is by season, hour of the day and, where there are any, other columns."""

    weights: Numbers
    scales: Numbers

    @classmethod
    def of(cls, hours: Numbers, values: Numbers, others: Numbers | None = None) -> Climate:
        """Fit the rule; `hours` are whole hours since 1970, rows with a NaN are left out."""
        scales = _scales(others)
        terms = _terms(hours, others, scales)
        known = np.isfinite(values) & np.isfinite(terms).all(axis=1)
        of = terms[known]
        # Of the squares, not of the rows: a tenth of the time, and columns of one size lose nothing by it.
        weights, *_ = np.linalg.lstsq(of.T @ of, of.T @ values[known], rcond=None)
        return cls(weights, scales)

    def anomalies(self, hours: Numbers, values: Numbers, others: Numbers | None = None) -> Numbers:
        """Return how far each value is from what is usual; NaN where something is missing."""
        found: Numbers = values - _terms(hours, others, self.scales) @ self.weights
        return found


def _scales(others: Numbers | None) -> Numbers:
    """Return what makes columns of hPa and of mm weigh the same: their middles, then their spreads."""
    if others is None:
        return np.zeros((2, 0))
    spread = np.nanstd(others, axis=0)
    return np.stack([np.nanmean(others, axis=0), np.where(spread > 0, spread, 1.0)])


def _terms(hours: Numbers, others: Numbers | None, scales: Numbers) -> Numbers:
    day, year = (2 * np.pi * hours / period for period in (DAY_HOURS, YEAR_HOURS))
    daily = [np.cos(day), np.sin(day), np.cos(2 * day), np.sin(2 * day)]
    yearly = [np.cos(year), np.sin(year)]
    both = [a * b for a in daily[:2] for b in yearly]
    terms = np.stack([np.ones(len(hours)), *daily, *yearly, *both], axis=1)
    if others is None:
        return terms
    middle, spread = scales
    return np.concatenate([terms, (others - middle) / spread], axis=1)


class Yardstick(NamedTuple):
    """How far a window of days may be from all of the reference, and from its last days, by nature."""

    whole: Histogram
    tail: Histogram
    whole_limit: float
    tail_limit: float

    def score(self, window: Histogram) -> float:
        """Return how far `window` is from the nearer of the two, as a share of what is natural.

        The last days count for themselves: a regime that the training rows end with is known to
        the model, although it is rare among them.
        """
        whole = wasserstein(window, self.whole) / self.whole_limit
        if not self.tail.total:
            return whole
        return min(whole, wasserstein(window, self.tail) / self.tail_limit)


def yardstick(
    hours: Numbers, anomalies: Numbers, window_days: int, tail_days: int
) -> Yardstick | None:
    """Return what windows of the reference are apart by nature, or None where it is too short to say."""
    known = np.isfinite(anomalies)
    if not known.any() or (hours[-1] - hours[0]) / DAY_HOURS < LEAST_DAYS:
        return None
    whole = Histogram.even(anomalies[known], BINS)
    ages = (hours[-1] - hours) // DAY_HOURS
    daily = Daily(whole, int(ages.max()) + 1)
    daily.add(ages, anomalies)
    windows, tails = (_windows(daily.counts, days) for days in (window_days, tail_days))
    step = float(whole.borders[1] - whole.borders[0]) * SLACK
    apart = np.abs(windows - whole.shares).sum(axis=1)
    if not (len(tails) and len(apart) and apart.max() > 0):
        return None
    return Yardstick(
        whole=whole,
        tail=daily.window(0, tail_days),
        whole_limit=float(apart.max()) * step,
        tail_limit=_farthest(windows, tails, window_days) * step,
    )


def _windows(by_day: Numbers, days: int) -> Numbers:
    """Return the shares up to each bin of every run of `days` days that is not mostly missing."""
    sums = np.concatenate([np.zeros_like(by_day[:1]), np.cumsum(by_day, axis=0)])
    windows = sums[days:] - sums[:-days]
    totals = windows.sum(axis=1)
    whole = windows[totals >= days * DAY_HOURS * LEAST_SHARE]
    shares: Numbers = np.cumsum(whole, axis=1) / whole.sum(axis=1, keepdims=True)
    return shares


def _farthest(windows: Numbers, tails: Numbers, days: int) -> float:
    # Every so many days: windows that overlap tell nothing new.
    some = windows[::days]
    return max(float(np.abs(some - tail).sum(axis=1).max()) for tail in tails[::days])
