"""The simulated station: the same everywhere, worth learning, and as untidy as a real one."""

from __future__ import annotations

import datetime as dt
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.lib.stride_tricks import sliding_window_view

from raysys import sources
from raysys.errors import SourceError
from raysys.records import Window
from raysys.settings import Settings
from raysys.sources import sample
from tests.conftest import NOW

FIRST = 473_000


def hours(count: int) -> np.ndarray:
    return np.arange(FIRST, FIRST + count, dtype=np.int64)


def test_hour_does_not_depend_on_what_it_is_asked_with() -> None:
    start = dt.datetime(2025, 6, 1, tzinfo=dt.UTC)
    times = [start + dt.timedelta(hours=i) for i in range(50)]
    alone = [item for time in times for item in sample.station_items("108", time, time)]
    assert alone == sample.station_items("108", times[0], times[-1])


def test_hours_are_the_same_in_another_process() -> None:
    code = (
        "import numpy as np; from raysys.sources import sample;"
        f"h = np.arange({FIRST}, {FIRST} + 9, dtype=np.int64);"
        "print(sample.weather(h, sample.station_seed('108'))['humidity'].round(6).tolist())"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    here = sample.weather(hours(9), sample.station_seed("108"))["humidity"].round(6).tolist()
    assert shown.stdout.strip() == str(here)


def test_stations_differ_and_stay_within_physical_ranges() -> None:
    from raysys.pipelines.validate import RANGES

    a, b = (sample.weather(hours(9000), sample.station_seed(s)) for s in ("108", "159"))
    assert abs(np.corrcoef(a["wind_speed"], b["wind_speed"])[0, 1]) < 0.5
    for column, (low, high) in RANGES.items():
        assert a[column].min() >= low
        assert a[column].max() <= high


def linear_error(x: np.ndarray, y: np.ndarray, split: int) -> float:
    """Return the mean absolute error after `split` rows of a least-squares fit to those before."""
    x = np.column_stack([x, np.ones(len(x))])
    weights = np.linalg.lstsq(x[:split], y[:split], rcond=1e-6)[0]
    return float(np.abs(x[split:] @ weights - y[split:]).mean())


def test_weather_is_worth_learning() -> None:
    """A linear model beats "the same hour yesterday" by far more than 10 %, and not by magic."""
    windows = sliding_window_view(sample.weather(hours(8760), 7)["temperature"], 96)[::3]
    windows = windows - windows[:, 71:72]
    persistence = np.abs(windows[2000:, 48:72] - windows[2000:, 72:]).mean()
    error = linear_error(windows[:, :72], windows[:, 72:], 2000)
    assert 0.15 < 1 - error / persistence < 0.40


def test_source_speaks_kma_over_http(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, source_backoff_seconds=0, source_attempts=1)
    with sources.open_source(settings, lambda: NOW) as source:
        assert (source.name, source.series) == ("sample", sources.series_name(settings))
        last = source.last_hour(NOW)
        start = last - dt.timedelta(hours=981)
        frame = source.fetch(Window(start=start, end=last))
        again = source.fetch(Window(start=start, end=last))
        with pytest.raises(SourceError, match="up to yesterday"):
            source.fetch(Window(start=last, end=last + dt.timedelta(hours=24)))
    pd.testing.assert_frame_equal(frame, again)
    assert frame["time"].max() == pd.Timestamp(last)
    assert 950 < len(frame) < 990


def test_two_years_hold_gaps_repetitions_and_a_broken_sensor() -> None:
    start = dt.datetime(2024, 3, 15, tzinfo=dt.UTC)
    items = sample.station_items("108", start, start + dt.timedelta(days=730))
    times = [item["tm"] for item in items]
    assert 20 < 730 * 24 + 1 - len(set(times)) < 200
    assert 0 < len(times) - len(set(times)) < 50
    assert 0 < sum(item["ta"] == "-99.9" for item in items) < 50


def test_insurance_rows_are_the_same_for_a_seed_and_reward_interplay() -> None:
    """What trees find and a linear model does not: smoking costs more together with obesity."""
    rows = sample.insurance_rows(1000, seed=1)
    assert rows == sample.insurance_rows(1000, seed=1) != sample.insurance_rows(1000, seed=2)
    table = pd.DataFrame(rows)
    smoker = (table["smoker"] == "yes").to_numpy(float)
    plain = np.column_stack([table[["age", "bmi", "children"]].to_numpy(float), smoker])
    obese = (table["bmi"] >= 30).to_numpy(float)
    both = np.column_stack([plain, smoker * obese, smoker * table["bmi"], table["age"] ** 2])
    charges = table["charges"].to_numpy()
    assert linear_error(both, charges, 800) < 0.75 * linear_error(plain, charges, 800)


@pytest.mark.parametrize("name", ["kma", "open-meteo", "sample"])
def test_every_source_names_its_series_as_announced(name: str, tmp_path: Path) -> None:
    settings = Settings(
        home=tmp_path, atmos_source=name, kma_service_key="k", kma_base_url="http://127.0.0.1:1"
    )
    with sources.open_source(settings, lambda: NOW) as source:
        assert source.name == name
        assert source.series == sources.series_name(settings)
