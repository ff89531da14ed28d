"""The store keeps its promises on both databases."""

from __future__ import annotations

import datetime as dt
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sa
from msgspec.structs import replace

from raysys.errors import NotFound
from raysys.records import Event, Gap, Promotion, Rejection, Snapshot
from raysys.store import (
    events,
    examples,
    ledger,
    observations,
    predictions,
    promotions,
    quarantine,
    snapshots,
)
from raysys.store.tables import WEATHER_COLUMNS
from tests.conftest import NOW

START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
DAY = dt.date(2026, 1, 1)


def hours(count: int, start: dt.datetime = START, **values: Any) -> pd.DataFrame:
    frame = pd.DataFrame({"time": pd.date_range(start, periods=count, freq="h")})
    for column in WEATHER_COLUMNS:
        frame[column] = values.get(column, 1.5)
    return frame


def store(engine: sa.Engine, frame: pd.DataFrame, **changed: Any) -> tuple[int, int]:
    given = {
        "family": "atmos",
        "source": "kma",
        "series": "kma-108",
        "rejections": [],
        "days": [ledger.Day(day=DAY, state="complete", hours=len(frame))],
        "workflow_id": "w",
        "now": NOW,
    }
    return observations.store_window(engine, frame=frame, **{**given, **changed})


def test_hours_come_back_as_they_were_stored(engine: sa.Engine) -> None:
    frame = hours(1200, temperature=np.arange(1200) / 10, humidity=np.nan)
    assert store(engine, frame) == (1200, 0)
    read = observations.read(engine, "kma-108")
    pd.testing.assert_frame_equal(read, frame.astype({"time": "datetime64[ns, UTC]"}))
    assert observations.span(engine, "kma-108") == (
        START,
        START + dt.timedelta(hours=1199),
        1200,
    )


def test_hours_stored_again_change_nothing(engine: sa.Engine) -> None:
    store(engine, hours(48))
    assert store(engine, hours(72, temperature=9.0)) == (24, 48)
    read = observations.read(engine, "kma-108")
    assert read["temperature"].tolist() == [1.5] * 48 + [9.0] * 24


def test_missing_value_may_be_filled_but_not_taken_away(engine: sa.Engine) -> None:
    store(engine, hours(2, temperature=[np.nan, 4.0]))
    store(engine, hours(2, temperature=[3.0, np.nan]))
    assert observations.read(engine, "kma-108")["temperature"].tolist() == [3.0, 4.0]


def test_series_are_apart_and_a_range_includes_its_ends(engine: sa.Engine) -> None:
    store(engine, hours(10))
    store(engine, hours(3, temperature=7.0), series="other")
    until = START + dt.timedelta(hours=4)
    read = observations.read(engine, "kma-108", START + dt.timedelta(hours=2), until)
    assert len(read) == 3
    assert observations.read(engine, "none").empty
    assert observations.span(engine, "none") == (None, None, 0)
    assert observations.sources(engine, "other") == {"kma": 3}


def test_nothing_of_a_window_is_stored_when_a_part_fails(engine: sa.Engine) -> None:
    bad = [ledger.Day(day=DAY, state="complete", hours=None)]  # type: ignore[arg-type]
    with pytest.raises(sa.exc.IntegrityError):
        store(engine, hours(5), rejections=[Rejection(key="k", reason="r")], days=bad)
    assert observations.span(engine, "kma-108")[2] == 0
    assert quarantine.recent(engine, "atmos") == []


def test_complete_day_is_never_made_worse(engine: sa.Engine) -> None:
    days = [DAY, DAY + dt.timedelta(days=1)]
    ledger.mark_failed(
        engine, source="kma", series="kma-108", days=days, error="503", workflow_id="w", now=NOW
    )
    assert ledger.complete_days(engine, "kma", "kma-108", *days) == set()
    store(engine, hours(24))
    ledger.mark_failed(
        engine, source="kma", series="kma-108", days=days, error="22", workflow_id="x", now=NOW
    )
    assert ledger.days(engine, "kma", "kma-108", *days) == [
        ledger.Day(day=days[0], state="complete", hours=24),
        ledger.Day(day=days[1], state="failed", error="22"),
    ]
    assert ledger.first_day(engine, "kma", "kma-108") == DAY
    assert ledger.first_day(engine, "kma", "other") is None


def test_rejected_row_is_kept_once(engine: sa.Engine) -> None:
    refused = [Rejection(key="2026", reason="too hot", raw={"ta": "99"}, line=3)]
    for _ in range(2):
        store(engine, hours(1), rejections=refused)
    assert quarantine.recent(engine, "atmos") == refused
    assert quarantine.count(engine, "atmos") == 1


def test_examples_added_again_add_nothing_and_an_honest_duplicate_is_kept(
    engine: sa.Engine,
) -> None:
    rows = [{"b": 1, "a": 2.0}, {"b": 3, "a": 4.5}, {"b": 1, "a": 2.0}]
    given = {"family": "f", "source": "x.csv", "workflow_id": None, "now": NOW}
    assert examples.add(engine, rows=rows, **given) == (3, 0)
    assert examples.add(engine, rows=rows, **given) == (0, 3)
    assert examples.add(engine, rows=[{"a": 0.5, "b": 9}, *rows], **given) == (1, 3)
    read = examples.read(engine, "f")
    assert read.columns.tolist() == ["a", "b"]
    assert read["b"].tolist() == [1, 3, 1, 9]
    assert examples.count(engine, "f") == 4
    assert examples.read(engine, "none").empty


def test_simulated_examples_are_left_out_as_soon_as_there_are_observed_ones(
    engine: sa.Engine,
) -> None:
    rest = {"family": "plants", "workflow_id": None, "now": NOW}
    simulated, observed = [{"a": 1}, {"a": 2}], [{"a": 2}]
    assert examples.add(engine, rows=simulated, source=examples.SIMULATED, **rest) == (2, 0)
    assert examples.add(engine, rows=simulated, source=examples.SIMULATED, **rest) == (0, 2)
    assert (examples.count(engine, "plants"), len(examples.read(engine, "plants"))) == (2, 2)
    assert examples.add(engine, rows=observed, source="file.csv", **rest) == (1, 0)
    assert examples.read(engine, "plants").to_dict("records") == observed
    assert examples.count(engine, "plants") == 1


def test_snapshot_is_registered_once(engine: sa.Engine) -> None:
    gap = Gap(column="temperature", start=START, end=START, hours=1, filled=True)
    first = Snapshot(
        hash="h", family="f", uri="/a", rows=2, time_from=START, gaps=[gap], created_at=NOW
    )
    assert snapshots.latest(engine, "f") is None
    assert snapshots.add(engine, first, "w") == first
    assert snapshots.add(engine, replace(first, created_at=START), "v") == first
    later = replace(first, hash="i", created_at=NOW + dt.timedelta(1))
    snapshots.add(engine, later, "w")
    assert snapshots.get(engine, "f", "h") == first
    assert snapshots.latest(engine, "f") == later
    with pytest.raises(NotFound, match="no snapshot zz of f"):
        snapshots.get(engine, "f", "zz")


def test_promotion_is_appended_once_and_listed_newest_first(engine: sa.Engine) -> None:
    first = Promotion(
        id="1",
        family="f",
        alias="champion",
        action="promote",
        to_version="1",
        from_version=None,
        actor="me",
        reason="better",
        at=NOW,
        report={"mae": 1.5},
    )
    second = replace(first, id="2", to_version="2", from_version="1")
    assert [promotions.append(engine, p) for p in (first, second, first)] == [True, True, False]
    assert promotions.history(engine, "f") == [second, first]
    assert promotions.history(engine, limit=1) == [second]
    assert promotions.history(engine, "g") == []


def test_events_are_read_after_a_number(engine: sa.Engine) -> None:
    event = Event(workflow_id="w", at=NOW, step="crawl", message="m", done=1, fields={"a": [1]})
    numbers = [events.append(engine, replace(event, done=i)) for i in range(3)]
    events.append(engine, replace(event, workflow_id="other"))
    assert numbers == sorted(numbers)
    assert events.after(engine, "w", numbers[0]) == [
        (numbers[1], replace(event, done=1)),
        (numbers[2], replace(event, done=2)),
    ]


def test_prediction_is_logged_once(engine: sa.Engine) -> None:
    row = {"id": "p", "request_id": "r", "family": "f", "version": "1", "at": NOW}
    row |= {"latency_ms": 1.5, "inputs": [1], "outputs": [2.5]}
    assert predictions.append_many(engine, [row]) == 1
    assert predictions.append_many(engine, [row, {**row, "id": "q"}]) == 1
    assert predictions.append_many(engine, []) == 0
