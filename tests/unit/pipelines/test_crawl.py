"""What a crawl asks for, and what becomes of the answers."""

from __future__ import annotations

import datetime as dt
from typing import Any
from zoneinfo import ZoneInfo

import pandas as pd
import pytest
import sqlalchemy as sa

from raysys.errors import Conflict, InvalidInput, QuotaExhausted, SourceBusy, SourceError
from raysys.pipelines import crawl
from raysys.records import Window
from raysys.store import ledger, observations, quarantine
from raysys.store.tables import WEATHER_COLUMNS
from tests.conftest import NOW

SEOUL = ZoneInfo("Asia/Seoul")
DAY = dt.timedelta(days=1)
LAST_DAY = dt.date(2026, 3, 14)


class Station:
    """A source in memory: every hour up to `last`, but for those in `absent`."""

    name = "memory"
    series = "memory-1"
    zone = SEOUL
    window_hours = 72

    def __init__(self, last: dt.datetime = dt.datetime(2026, 3, 14, 23, tzinfo=SEOUL)) -> None:
        self.last = last.astimezone(dt.UTC)
        self.absent: set[dt.datetime] = set()
        self.changed: dict[dt.datetime, Any] = {}

    def last_hour(self, now: dt.datetime) -> dt.datetime:
        return self.last

    def fetch(self, window: Window) -> pd.DataFrame:
        times = pd.date_range(window.start, min(window.end, self.last), freq="h")
        times = times[~times.isin(list(self.absent))]
        table = pd.DataFrame({"time": times, "key": times.astype(str)})
        for column in WEATHER_COLUMNS:
            table[column] = pd.Series([None] * len(times), dtype="object")
        table["temperature"] = pd.Series([self.changed.get(t, 1.5) for t in times], dtype="object")
        return table

    def close(self) -> None:
        pass


def plan(engine: sa.Engine, source: Station, **given: Any) -> list[Window]:
    asked = {"since": None, "until": None, "now": NOW, "history_days": 7, **given}
    return crawl.plan(engine, source, **asked)


def run(engine: sa.Engine, source: Station, **given: Any) -> list[Any]:
    return [
        crawl.fetch_window(engine, source, "air", window, workflow_id="w", now=NOW)
        for window in plan(engine, source, **given)
    ]


def local_days(windows: list[Window]) -> list[tuple[str, str]]:
    return [
        (f"{w.start.astimezone(SEOUL):%m-%d %H}", f"{w.end.astimezone(SEOUL):%m-%d %H}")
        for w in windows
    ]


def test_first_crawl_reaches_back_in_windows_of_whole_days(engine: sa.Engine) -> None:
    assert local_days(plan(engine, Station())) == [
        ("03-08 00", "03-10 23"),
        ("03-11 00", "03-13 23"),
        ("03-14 00", "03-14 23"),
    ]


def test_crawled_days_are_not_asked_for_again(engine: sa.Engine) -> None:
    first = run(engine, Station())
    assert [(r.new, r.known, r.missing_hours) for r in first] == [
        (72, 0, 0),
        (72, 0, 0),
        (24, 0, 0),
    ]
    assert run(engine, Station()) == []


def test_overlapping_crawl_stores_nothing_twice(engine: sa.Engine) -> None:
    run(engine, Station())
    window = Window(start=Station().last - 2 * DAY, end=Station().last)
    report = crawl.fetch_window(engine, Station(), "air", window, workflow_id="x", now=NOW)
    assert (report.new, report.known) == (0, 49)
    assert observations.span(engine, "memory-1")[2] == 7 * 24


def test_holes_since_the_first_day_are_found(engine: sa.Engine) -> None:
    run(engine, Station(), since=dt.date(2026, 3, 1), until=dt.date(2026, 3, 2))
    run(engine, Station(), since=dt.date(2026, 3, 5), until=dt.date(2026, 3, 12))
    assert local_days(plan(engine, Station())) == [
        ("03-03 00", "03-04 23"),
        ("03-13 00", "03-14 23"),
    ]


def test_failed_days_are_asked_for_again(engine: sa.Engine) -> None:
    source = Station()
    windows = plan(engine, source)
    busy = SourceBusy("later", code="01")
    assert not crawl.note_failure(engine, source, windows[1], busy, workflow_id="w", now=NOW)
    for window in (windows[0], windows[2]):
        crawl.fetch_window(engine, source, "air", window, workflow_id="w", now=NOW)
    assert plan(engine, source) == [windows[1]]
    [day] = ledger.days(engine, "memory", "memory-1", dt.date(2026, 3, 11), dt.date(2026, 3, 11))
    assert (day.state, day.error) == ("failed", "later")


def test_day_that_was_not_wholly_published_is_asked_for_again(engine: sa.Engine) -> None:
    run(engine, Station(last=dt.datetime(2026, 3, 14, 11, tzinfo=SEOUL)))
    known = ledger.days(engine, "memory", "memory-1", LAST_DAY, LAST_DAY)
    assert known == [ledger.Day(day=LAST_DAY, state="partial", hours=12)]
    [report] = run(engine, Station())
    assert (report.new, report.known) == (12, 12)
    assert plan(engine, Station()) == []


def test_hours_that_the_source_lacks_are_counted_and_not_asked_for_again(
    engine: sa.Engine,
) -> None:
    source = Station()
    source.absent = {source.last - dt.timedelta(hours=i) for i in (0, 5)}
    assert [r.missing_hours for r in run(engine, source)] == [0, 0, 2]
    known = ledger.days(engine, "memory", "memory-1", LAST_DAY, LAST_DAY)
    assert known == [ledger.Day(day=LAST_DAY, state="complete", hours=22)]
    assert plan(engine, source) == []


def test_refused_rows_are_kept_with_the_window(engine: sa.Engine) -> None:
    source = Station()
    source.changed = {source.last: 98765}
    report = run(engine, source)[-1]
    assert (report.read, report.new, report.rejected, report.missing_hours) == (24, 23, 1, 1)
    [refused] = quarantine.recent(engine, "air")
    assert "temperature 98765" in refused.reason


def test_nothing_is_published_yet_for_the_day_asked(engine: sa.Engine) -> None:
    with pytest.raises(InvalidInput, match="nothing after 2026-03-14"):
        plan(engine, Station(), since=dt.date(2026, 3, 15))
    assert local_days(plan(engine, Station(), until=dt.date(2099, 1, 1)))[-1][1] == "03-14 23"


def test_until_before_since_is_refused(engine: sa.Engine) -> None:
    with pytest.raises(InvalidInput, match="before"):
        plan(engine, Station(), since=dt.date(2026, 3, 5), until=dt.date(2026, 3, 4))


def test_day_of_a_clock_change_is_whole(engine: sa.Engine) -> None:
    source = Station(last=dt.datetime(2026, 3, 29, 23, tzinfo=ZoneInfo("Europe/Berlin")))
    source.zone = ZoneInfo("Europe/Berlin")
    [window] = plan(engine, source, since=dt.date(2026, 3, 29))
    assert (window.end - window.start) / dt.timedelta(hours=1) + 1 == 23


@pytest.mark.parametrize(
    ("error", "stop"),
    [
        (SourceBusy("m", code="01"), False),
        (SourceError("m", code="10"), False),
        (SourceError("m", code="99"), False),
        (SourceError("m", code="30"), True),
        (SourceError("m", code="401"), True),
        (QuotaExhausted("m", code="22"), True),
    ],
)
def test_crawl_stops_when_asking_on_is_pointless(error: SourceError, stop: bool) -> None:
    assert crawl.should_stop(error) is stop


def test_simulated_weather_is_never_mixed_with_observed(engine: sa.Engine) -> None:
    run(engine, Station())
    source = Station()
    source.name = "sample"
    with pytest.raises(Conflict, match="RAYSYS_ATMOS_STATION"):
        plan(engine, source)
