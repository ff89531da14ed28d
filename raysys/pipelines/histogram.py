"""Mergeable histograms over fixed bins, and how far two of them are apart; whose values they hold is not known here."""

from __future__ import annotations

from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

BINS = 10
PSI_FLOOR = 0.2  # the usual border of a shift that matters, however large the sample
KS_FLOOR = 0.15

Numbers = NDArray[Any]


class Histogram(NamedTuple):
    """Counts of values between ascending `borders`; `points` holds the value that stands for each bin."""

    borders: Numbers
    points: Numbers
    counts: Numbers

    @classmethod
    def over(cls, values: Numbers) -> Self:
        """Return the histogram of `values` over bins made of them; raises ValueError without any.

        Few distinct values get a bin each, and one below and above for values never seen; many
        get ten bins that hold as many of them each.
        """
        borders, points = _bins(np.asarray(values, np.float64))
        return cls(borders, points, np.zeros(len(points), np.int64)).add(values)

    @classmethod
    def even(cls, values: Numbers, bins: int) -> Self:
        """Return the histogram of `values` over equally wide bins, which reach a quarter beyond them."""
        low, high = float(np.min(values)), float(np.max(values))
        beyond = (high - low) / 4 or 0.5
        borders = np.linspace(low - beyond, high + beyond, bins - 1)
        half = (borders[1] - borders[0]) / 2
        points = np.append(borders - half, borders[-1] + half)
        return cls(borders, points, np.zeros(bins, np.int64)).add(values)

    def empty(self) -> Histogram:
        """Return the same bins without counts."""
        return self._replace(counts=np.zeros_like(self.counts))

    def add(self, values: Numbers) -> Self:
        """Return this histogram with `values` counted too; what is not a number is left out."""
        known = np.asarray(values, np.float64)
        places = self.place(known[np.isfinite(known)])
        more = np.bincount(places, minlength=len(self.points))
        return self._replace(counts=self.counts + more)

    def place(self, values: Numbers) -> NDArray[np.intp]:
        """Return the bin of each value."""
        return np.searchsorted(self.borders, values, side="right")

    def merge(self, other: Histogram) -> Histogram:
        """Return the histogram of both's values; they must have the same bins."""
        return self._replace(counts=self.counts + other.counts)

    @property
    def total(self) -> int:
        """How many values were counted."""
        return int(self.counts.sum())

    @property
    def shares(self) -> Numbers:
        """The share of the values up to each bin, the last of which is 1."""
        return np.cumsum(self.counts) / max(self.total, 1)


class Daily:
    """Counts of the newest `days` days, each in the same bins, so that any run of days is a histogram."""

    def __init__(self, bins: Histogram, days: int) -> None:
        self.counts = np.zeros((days, len(bins.points)), np.int64)
        self._bins = bins

    def add(self, ages: Numbers, values: Numbers) -> None:
        """Count values by their age in days, 0 for the newest day; older ones are left out."""
        known = np.isfinite(values) & (ages >= 0) & (ages < len(self.counts))
        np.add.at(self.counts, (ages[known], self._bins.place(values[known])), 1)

    def window(self, newest: int, days: int) -> Histogram:
        """Return the histogram of `days` days, the newest of which is `newest` days old."""
        return self._bins._replace(counts=self.counts[newest : newest + days].sum(axis=0))


def _bins(values: Numbers) -> tuple[Numbers, Numbers]:
    known = values[np.isfinite(values)]
    if not len(known):
        raise ValueError("bins need values")
    distinct = np.unique(known)
    if len(distinct) <= BINS:
        gap = float(np.diff(distinct).min()) if len(distinct) > 1 else 1.0
        points = np.concatenate([[distinct[0] - gap], distinct, [distinct[-1] + gap]])
        return (points[1:] + points[:-1]) / 2, points
    borders = np.unique(np.quantile(known, np.linspace(0, 1, BINS + 1)[1:-1]))
    places = np.searchsorted(borders, known, side="right")
    sums = np.bincount(places, weights=known, minlength=len(borders) + 1)
    counts = np.bincount(places, minlength=len(borders) + 1)
    middle = np.concatenate([borders[:1], (borders[1:] + borders[:-1]) / 2, borders[-1:]])
    return borders, np.where(counts > 0, sums / np.maximum(counts, 1), middle)


def psi(one: Histogram, other: Histogram) -> float:
    """Return the population stability index of two histograms, 0 for equal shares.

    Each bin is moved a little towards both's common share, so that an empty one is not infinitely
    far and two samples of one distribution are apart as chi-square says.
    """
    common = (one.counts + other.counts) / max(one.total + other.total, 1)
    used = common > 0
    weight = used.sum() / 2
    p, q = (
        (h.counts[used] + weight * common[used]) / max(h.total + weight, 1) for h in (one, other)
    )
    return float(np.sum((p - q) * np.log(p / q)))


def ks(one: Histogram, other: Histogram) -> float:
    """Return the largest difference of the two distributions at a border: Kolmogorov and Smirnov's."""
    return float(np.abs(one.shares - other.shares).max())


def wasserstein(one: Histogram, other: Histogram) -> float:
    """Return how far the values of one must be moved on the average to become the other, in their unit."""
    from scipy import stats

    if not (one.total and other.total):
        return 0.0
    points = one.points
    return float(stats.wasserstein_distance(points, points, one.counts, other.counts))


def psi_limit(one: Histogram, other: Histogram, chance: float) -> float:
    """Return the index that two samples of these sizes from one distribution exceed with `chance`, if over 0.2."""
    from scipy import stats

    bins = int(((one.counts + other.counts) > 0).sum())
    spread = 1 / max(one.total, 1) + 1 / max(other.total, 1)
    return max(PSI_FLOOR, float(stats.chi2.isf(chance, max(bins - 1, 1)) * spread))


def ks_limit(one: Histogram, other: Histogram, chance: float) -> float:
    """Return the difference that two samples of these sizes exceed with `chance`, if over 0.15."""
    from scipy import stats

    spread = 1 / max(one.total, 1) + 1 / max(other.total, 1)
    return max(KS_FLOOR, float(stats.kstwobign.isf(chance) * np.sqrt(spread)))
