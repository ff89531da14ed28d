"""The loop of the crawl, as a plain function: outside a worker its steps are plain functions too."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import pytest

from raysys import durable
from raysys.errors import InvalidInput, QuotaExhausted, SourceBusy, SourceError
from raysys.records import Window
from raysys.settings import Settings
from tests import kma
from workflows import crawl

if TYPE_CHECKING:
    import pandas as pd

WEEK = ("2024-01-01", "2024-01-07")


class Days:
    """A source whose windows are days; `faults` holds what is raised for the first askings of a day."""

    name = "days"
    series = "days-1"
    zone = ZoneInfo("UTC")
    window_hours = 24

    def __init__(self, faults: dict[int, list[Exception]]) -> None:
        self.faults = faults
        self.asked: list[int] = []

    def last_hour(self, now: datetime) -> datetime:
        return now

    def fetch(self, window: Window) -> pd.DataFrame:
        import pandas as pd

        self.asked.append(window.start.day)
        if faults := self.faults.get(window.start.day):
            raise faults.pop(0)
        times = pd.date_range(window.start, window.end, freq="h").as_unit("ns")
        columns: dict[str, Any] = dict.fromkeys(
            ("precipitation", "wind_direction", "wind_speed", "station_pressure", "sea_pressure")
        )
        frame = {"key": times.strftime("%Y-%m-%d %H:%M"), "time": times, "temperature": 1.5}
        return pd.DataFrame({**frame, **columns, "humidity": 50.0, "raw": [{} for _ in times]})

    def close(self) -> None:
        """Nothing is open."""


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("RAYSYS_HOME", str(tmp_path))
    monkeypatch.setattr(durable, "workflow_id", lambda: "crawl-1")
    return Settings()


def offer(monkeypatch: pytest.MonkeyPatch, source: Days) -> Days:
    @contextmanager
    def opened(_settings: Settings) -> Iterator[Days]:
        yield source

    monkeypatch.setattr("raysys.sources.open_source", opened)
    return source


@pytest.mark.usefixtures("engine")
def test_failed_window_is_asked_for_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    source = offer(monkeypatch, Days({3: [SourceBusy("busy", code="05")]}))
    report = crawl.crawl("atmos", *WEEK)
    assert (report["new"], report["windows"], report["failed"]) == (7 * 24, 7, [])
    assert source.asked == [1, 2, 3, 4, 5, 6, 7, 3]
    assert crawl.crawl("atmos", *WEEK)["windows"] == 0


@pytest.mark.usefixtures("engine")
def test_window_that_fails_twice_fails_the_run_and_is_left_to_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = offer(monkeypatch, Days({3: [SourceBusy("busy", code="05") for _ in range(2)]}))
    with pytest.raises(
        SourceError, match=r"1 of 7 windows .*2024-01-03T00\.\.2024-01-03T23Z: busy"
    ):
        crawl.crawl("atmos", *WEEK)
    assert crawl.crawl("atmos", *WEEK)["new"] == 24
    assert source.asked[-1] == 3


@pytest.mark.usefixtures("engine")
def test_used_up_quota_ends_the_crawl_well(monkeypatch: pytest.MonkeyPatch) -> None:
    source = offer(monkeypatch, Days({3: [QuotaExhausted("tomorrow", code="22")]}))
    report = crawl.crawl("atmos", *WEEK)
    assert (report["new"], report["stopped"], report["failed"]) == (2 * 24, "tomorrow", [])
    assert source.asked == [1, 2, 3]


@pytest.mark.usefixtures("engine")
def test_refused_key_fails_the_run_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    source = offer(monkeypatch, Days({1: [SourceError("the key is not known", code="30")]}))
    with pytest.raises(SourceError, match="the key is not known"):
        crawl.crawl("atmos", *WEEK)
    assert source.asked == [1]


@pytest.mark.usefixtures("settings")
@pytest.mark.parametrize(("family", "since"), [("insurance", None), ("atmos", "yesterday")])
def test_what_cannot_be_crawled_is_refused(
    monkeypatch: pytest.MonkeyPatch, family: str, since: str | None
) -> None:
    offer(monkeypatch, Days({}))
    with pytest.raises(InvalidInput):
        crawl.crawl(family, since)


@pytest.mark.usefixtures("engine")
def test_one_crawl_fills_the_hole_of_a_day_of_failed_ones(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The service is away at four of the clock's ticks, as long as a day."""
    first = datetime(2024, 3, 1, 3, 17, tzinfo=UTC)  # 12:17 in Seoul: all of yesterday is out
    hours = (datetime.fromisoformat("2024-02-01") + timedelta(hours=h) for h in range(40 * 24))
    station = {h: kma.make_item({"time": f"{h:%Y-%m-%d %H:%M}", "tmp": "1.5"}) for h in hours}
    clock = [first]
    monkeypatch.setattr(crawl, "_now", lambda: clock[0])
    away: list[int] = []
    with kma.KmaServer(
        station,
        faults=lambda _: "http_500" if away else None,
        today=lambda: clock[0].astimezone(kma.KST).date(),
    ) as server:
        for name, value in {
            "RAYSYS_ATMOS_SOURCE": "kma",
            "RAYSYS_KMA_BASE_URL": server.url,
            "RAYSYS_SOURCE_ATTEMPTS": "2",
            "RAYSYS_SOURCE_BACKOFF_SECONDS": "0.001",
            "RAYSYS_ATMOS_HISTORY_DAYS": "10",
        }.items():
            monkeypatch.setenv(name, value)
        assert crawl.crawl("atmos")["new"] == 10 * 24
        away.append(1)
        for _ in range(4):
            clock[0] += timedelta(hours=6)
            with suppress(SourceError):  # raised once the day that is missing is over
                assert crawl.crawl("atmos")["new"] == 0
        away.clear()
        clock[0] += timedelta(hours=6)
        asked = len(server.queries)
        report = crawl.crawl("atmos")
        assert (report["new"], report["windows"], report["failed"]) == (24, 1, [])
        assert len(server.queries) == asked + 1
        assert crawl.crawl("atmos")["windows"] == 0
