"""What is usual for an hour, and how far weeks differ by nature."""

from __future__ import annotations

import numpy as np
import pytest

from raysys.pipelines import climate as module
from raysys.pipelines.climate import Climate, yardstick
from raysys.sources.sample import station_seed, weather

START = 19_000 * 24  # hours since 1970
YEAR = 365 * 24


def hours(count: int, start: int = START) -> np.ndarray:
    return np.arange(start, start + count, dtype=np.int64)


def test_season_hour_and_other_columns_are_taken_out() -> None:
    when = hours(2 * YEAR)
    other = np.random.default_rng(2).normal(1000, 10, len(when))
    season = 9 * np.cos(2 * np.pi * when / module.YEAR_HOURS)
    day = 4 * np.sin(2 * np.pi * when / 24)
    values = 12 + season + day * (1 + season / 20) - 0.3 * other
    found = Climate.of(when, values, other[:, None])
    assert np.abs(found.anomalies(when, values, other[:, None])).max() < 1e-6
    later = hours(24, START + 3 * YEAR)
    assert found.anomalies(later, np.full(24, np.nan), np.zeros((24, 1))).shape == (24,)


def test_hours_that_lack_something_have_no_anomaly() -> None:
    when = hours(YEAR)
    values, other = np.zeros(YEAR), np.ones((YEAR, 1))
    values[3], other[5] = np.nan, np.nan
    found = Climate.of(when, values, other).anomalies(when, values, other)
    assert np.flatnonzero(np.isnan(found)).tolist() == [3, 5]


@pytest.mark.parametrize("station", ["108", "159", "112"])
def test_weeks_of_the_same_weather_are_near_and_a_shifted_relation_is_far(station: str) -> None:
    columns = weather(hours(YEAR * 2 + 1440), station_seed(station))
    when = hours(YEAR * 2 + 1440)
    known = slice(0, 2 * YEAR)
    others = columns["sea_pressure"][:, None]
    found = Climate.of(when[known], columns["temperature"][known], others[known])
    anomalies = found.anomalies(when, columns["temperature"], others)
    stick = yardstick(when[known], anomalies[known], 5, 2)
    assert stick is not None
    for start in range(2 * YEAR, len(when) - 120, 24):
        window = anomalies[start : start + 120]
        assert stick.score(stick.whole.empty().add(window)) < 1
        assert stick.score(stick.whole.empty().add(window + 4)) > 1


def test_the_regime_of_the_last_days_is_known() -> None:
    when = hours(YEAR)
    values = np.random.default_rng(3).normal(0, 1, YEAR)
    values[-48:] += 20
    stick = yardstick(when, values, 5, 2)
    assert stick is not None
    assert stick.score(stick.whole.empty().add(values[-48:])) < 0.2
    assert stick.score(stick.whole.empty().add(values[-480:-360])) < 1
    assert stick.score(stick.whole.empty().add(values[-480:-360] - 40)) > 1


@pytest.mark.parametrize(
    "values", [np.zeros(YEAR), np.full(YEAR, np.nan), np.random.default_rng(4).normal(size=2400)]
)
def test_too_short_or_empty_a_reference_gives_no_yardstick(values: np.ndarray) -> None:
    assert yardstick(hours(len(values)), values, 5, 2) is None
