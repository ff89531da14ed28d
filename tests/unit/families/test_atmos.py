"""The family atmos: gaps, windows, borders between parts, what it accepts."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest

from raysys.errors import InvalidInput
from raysys.families.atmos import HISTORY, HORIZON, Atmos, History

FAMILY = Atmos()
START = pd.Timestamp("2024-01-01T00:00Z")


def hours(values: list[float]) -> pd.DataFrame:
    times = pd.date_range(START, periods=len(values), freq="h")
    return pd.DataFrame({"time": times, "temperature": values})


def at(hour: int) -> dt.datetime:
    return (START + pd.Timedelta(hours=hour)).to_pydatetime()


def with_holes(count: int, *holes: tuple[int, int]) -> pd.DataFrame:
    """Return `count` rising hours without those of `holes`, each (first hour, length)."""
    rows = hours([hour / 10 for hour in range(count)])
    for first, length in holes:
        rows = rows[~rows["time"].between(at(first), at(first + length - 1))]
    return rows


def test_short_gap_is_filled_and_recorded() -> None:
    table, gaps = FAMILY.prepare(with_holes(40, (10, 6)))
    assert len(table) == 40
    assert table["temperature"].to_numpy() == pytest.approx(np.arange(40) / 10)
    (gap,) = gaps
    assert (gap.column, gap.start, gap.end, gap.hours) == ("temperature", at(10), at(15), 6)
    assert gap.filled


def test_long_gap_stays_open_and_is_recorded() -> None:
    table, gaps = FAMILY.prepare(with_holes(60, (10, 7), (30, 1)))
    assert table["temperature"].isna().sum() == 7
    assert [(gap.hours, gap.filled) for gap in gaps] == [(7, False), (1, True)]


def test_stored_null_counts_as_a_gap() -> None:
    rows = hours([1.0, 2.0, 3.0, 4.0])
    rows.loc[2, "temperature"] = np.nan
    table, gaps = FAMILY.prepare(rows)
    assert [(gap.start, gap.hours) for gap in gaps] == [(at(2), 1)]
    assert table["temperature"].tolist() == [1.0, 2.0, 3.0, 4.0]


def test_table_does_not_depend_on_the_order_of_rows() -> None:
    rows = with_holes(50, (10, 2))
    table, gaps = FAMILY.prepare(rows)
    shuffled, same = FAMILY.prepare(rows.sample(frac=1, random_state=1))
    pd.testing.assert_frame_equal(table, shuffled)
    assert gaps == same


def test_no_hours_are_invalid_input() -> None:
    with pytest.raises(InvalidInput, match="crawl"):
        FAMILY.prepare(hours([np.nan, np.nan]))


def test_too_few_hours_are_invalid_input() -> None:
    with pytest.raises(InvalidInput, match="too few"):
        FAMILY.split(hours([0.0] * 900), seed=1)


def test_windows_stay_inside_their_part_and_in_order() -> None:
    count = 2000
    parts = FAMILY.split(hours([float(hour) for hour in range(count)]), seed=1)
    borders = [0, 1200, 1800, 2000]
    for (x, y), start, end in zip(
        (parts.train, parts.validation, parts.test), borders, borders[1:], strict=False
    ):
        assert len(x) == end - start - HISTORY - HORIZON + 1
        assert (x.min(), y.max()) == (start, end - 1)
        whole = np.concatenate([x, y], axis=1)
        assert (np.diff(whole, axis=1) == 1).all()


def test_window_with_a_missing_hour_is_dropped() -> None:
    rows = hours([float(hour) for hour in range(2000)])
    rows.loc[500, "temperature"] = np.nan
    complete, holed = (FAMILY.split(table, 1) for table in (rows.fillna(500.0), rows))
    assert len(complete.train[0]) - len(holed.train[0]) == HISTORY + HORIZON
    assert np.isfinite(holed.train[0]).all()


def test_parts_have_float32_windows_of_72_and_24() -> None:
    parts = FAMILY.split(hours([0.0] * 2000), seed=1)
    for x, y in (parts.train, parts.validation, parts.test):
        assert (x.dtype, y.dtype) == (np.float32, np.float32)
        assert (x.shape[1], y.shape[1]) == (72, 24)
        assert x.flags.c_contiguous


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ([0.0] * 71, "length >= 72"),
        ([0.0] * 73, "length <= 72"),
        ([0.0] * 71 + [60.1], r"\$\[71\]"),
        ([0.0] * 3 + [None] + [0.0] * 68, r"\$\[3\]"),
        ([-61] + [0.0] * 71, r"\$\[0\]"),
        (["1"] + [0.0] * 71, r"\$\[0\]"),
        ({}, "array"),
    ],
)
def test_bad_history_is_refused_at_its_place(body: Any, place: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=place):
        msgspec.json.decode(json.dumps(body), type=History)


@pytest.mark.parametrize("number", ["1e999", "NaN"])
def test_number_that_is_not_finite_is_refused(number: str) -> None:
    body = "[" + ",".join(["0.5"] * 71 + [number]) + "]"
    with pytest.raises(msgspec.DecodeError):
        msgspec.json.decode(body, type=History)


def test_request_is_its_own_encoding() -> None:
    row = msgspec.convert(FAMILY.example, FAMILY.request)
    encoded = FAMILY.encode([row, row])
    assert encoded.shape == (2, 72)
    assert encoded[0].tolist() == pytest.approx(FAMILY.example)
    assert len(FAMILY.columns()) == 72


def test_answer_is_24_numbers() -> None:
    (answer,) = FAMILY.decode(np.arange(24, dtype=np.float32).reshape(1, 24))
    assert answer == list(range(24))


def test_real_hours_have_the_known_gaps(shared_data: Path) -> None:
    raw = pd.read_csv(shared_data / "hourly" / "beijing_aotizhongxin_2013_2017.csv")
    rows = pd.DataFrame(
        {"time": pd.to_datetime(raw["time"]).dt.tz_localize("UTC"), "temperature": raw["tmp"]}
    )
    table, gaps = FAMILY.prepare(rows)
    assert (len(table), sum(gap.hours for gap in gaps)) == (35064, 20)
    assert all(gap.filled for gap in gaps)
    parts = FAMILY.split(table, seed=1)
    assert [len(x) for x, _ in (parts.train, parts.validation, parts.test)] == [20943, 10425, 3411]
