"""From source to snapshot, on both databases."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import sqlalchemy as sa

from raysys import db, families, sources
from raysys.artifacts import Artifacts
from raysys.errors import QuotaExhausted, SourceError
from raysys.pipelines import crawl, ingest, snapshot
from raysys.records import WindowReport
from raysys.settings import Settings
from raysys.store import ledger, observations, quarantine
from tests.conftest import NOW
from tests.kma import Item, KmaServer, make_item, read_station, transient

FIRST, LAST = dt.date(2013, 3, 1), dt.date(2017, 2, 28)


def kma(settings: Settings, server: KmaServer) -> Settings:
    changed = {
        "atmos_source": "kma",
        "kma_base_url": server.url,
        "source_timeout_seconds": 0.5,
        "source_backoff_seconds": 0.0,
    }
    return settings.model_copy(update=changed)


def run(engine: sa.Engine, settings: Settings, **given: Any) -> list[WindowReport]:
    """Crawl window by window, as the workflow does; a failed window is noted."""
    asked = {"since": None, "until": None, "now": NOW, "history_days": 30, **given}
    reports = []
    with sources.open_source(settings, lambda: NOW) as source:
        for window in crawl.plan(engine, source, **asked):
            step = {"workflow_id": "w", "now": NOW}
            try:
                reports.append(crawl.fetch_window(engine, source, "atmos", window, **step))
            except SourceError as error:
                if crawl.note_failure(engine, source, window, error, **step):
                    break
    return reports


@pytest.fixture
def month() -> dict[dt.datetime, Item]:
    """A station with every hour of the month before NOW."""
    start = dt.datetime(2026, 2, 1)  # noqa: DTZ001  local time, as the station writes it
    hours = [start + dt.timedelta(hours=i) for i in range(43 * 24)]
    return {
        hour: make_item({"time": f"{hour:%Y-%m-%d %H:%M}", "tmp": str(hour.day), "ws": "1.0"})
        for hour in hours
    }


def test_real_years_are_stored_once_through_every_passing_fault(
    engine: sa.Engine, settings: Settings, shared_data: Path
) -> None:
    station = read_station(shared_data / "hourly" / "beijing_aotizhongxin_2013_2017.csv")
    with KmaServer(station, faults=transient) as server:
        reports = run(engine, kma(settings, server), since=FIRST, until=LAST)
        asked = len(server.queries)
        assert run(engine, kma(settings, server), since=FIRST, until=LAST) == []
        assert len(server.queries) == asked
    assert sum(r.new for r in reports) == len(station) == 35064
    assert sum(r.known + r.rejected + r.missing_hours for r in reports) == 0
    rows = observations.read(engine, "kma-108")
    assert rows["time"].is_unique
    wanted = pd.Series([float(i["ta"] or "nan") for i in station.values()], name="temperature")
    pd.testing.assert_series_equal(rows["temperature"], wanted)
    assert len(ledger.complete_days(engine, "kma", "kma-108", FIRST, LAST)) == 1461


def test_next_crawl_fills_what_a_failed_one_left(
    engine: sa.Engine, settings: Settings, month: dict[dt.datetime, Item]
) -> None:
    since = dt.date(2026, 2, 1)
    with KmaServer(month, faults=lambda n: "http_500" if n <= 6 else None) as server:
        few = kma(settings, server).model_copy(update={"source_attempts": 6})
        first = run(engine, few, since=since)
        assert sum(r.new for r in first) == 24  # the window of the last day
        second = run(engine, few)
    assert sum(r.new for r in second) == 41 * 24
    assert observations.span(engine, "kma-108")[2] == 42 * 24


def test_used_up_quota_ends_the_crawl_and_the_next_goes_on(
    engine: sa.Engine, settings: Settings, month: dict[dt.datetime, Item]
) -> None:
    since = dt.date(2026, 2, 1)
    with KmaServer(month, faults={2: "xml_22"}) as server:
        first = run(engine, kma(settings, server), since=since)
        assert (len(first), len(server.queries)) == (1, 2)
        run(engine, kma(settings, server))
    assert observations.span(engine, "kma-108")[2] == 42 * 24


def test_simulated_station_is_crawled_with_its_faults_known(
    engine: sa.Engine, settings: Settings
) -> None:
    reports = run(engine, settings, history_days=200)
    rows = observations.read(engine, "sample-108")
    assert sum(r.new for r in reports) == len(rows)
    assert len(rows) + sum(r.missing_hours for r in reports) == 200 * 24
    assert rows["temperature"].between(-40, 45).sum() + rows["temperature"].isna().sum() == len(
        rows
    )
    assert quarantine.count(engine, "atmos") == 0
    assert run(engine, settings) == []


def test_quota_is_an_error_of_its_own_through_the_whole_way(
    engine: sa.Engine, settings: Settings, month: dict[dt.datetime, Item]
) -> None:
    with KmaServer(month, faults={1: "json_22"}) as server:
        told = kma(settings, server)
        with sources.open_source(told, lambda: NOW) as source:
            [window, *_] = crawl.plan(
                engine, source, since=None, until=None, now=NOW, history_days=5
            )
            with pytest.raises(QuotaExhausted):
                crawl.fetch_window(engine, source, "atmos", window, workflow_id="w", now=NOW)
    assert observations.span(engine, "kma-108")[2] == 0


Fill = Callable[[sa.Engine, Settings], str | None]


def _crawled(engine: sa.Engine, settings: Settings) -> str:
    run(engine, settings, history_days=40)
    return "sample-108"


def _imported(engine: sa.Engine, settings: Settings) -> None:
    from raysys.sources.sample import insurance_rows

    path = settings.home / "rows.csv"
    pd.DataFrame(insurance_rows(300, seed=1)).to_csv(path, index=False)
    ingest.import_csv(engine, families.get("insurance"), path, settings=settings, now=NOW)


@pytest.mark.parametrize(("family", "fill"), [("atmos", _crawled), ("insurance", _imported)])
def test_same_rows_give_the_same_snapshot_on_either_database(
    family: str, fill: Fill, tmp_path: Path, postgres_url: str
) -> None:
    taken = []
    for number, url in enumerate((f"sqlite:///{tmp_path / 'raysys.db'}", postgres_url)):
        settings = Settings(home=tmp_path / f"home{number}", database_url=url)
        db.migrate(settings)
        engine = db.open_engine(settings.database)
        series = fill(engine, settings)
        artifacts = Artifacts(settings.artifact_root)
        made = snapshot.take(
            engine, artifacts, families.get(family), series, workflow_id="w", now=NOW
        )
        taken.append((made.hash, made.rows, made.gaps))
        assert len(snapshot.load(artifacts, made)) == made.rows
        engine.dispose()
    assert taken[0] == taken[1]


def test_real_hours_are_imported(engine: sa.Engine, settings: Settings, shared_data: Path) -> None:
    path = shared_data / "hourly" / "beijing_aotizhongxin_2013_2017.csv"
    atmos = families.get("atmos")
    reports = [ingest.import_csv(engine, atmos, path, settings=settings, now=NOW) for _ in range(2)]
    assert [(r.read, r.new, r.rejected) for r in reports] == [(35064, 35064, []), (35064, 0, [])]
    rows = observations.read(engine, "sample-108")
    assert rows["temperature"].isna().sum() == 20
    assert rows["wind_direction"].isna().sum() == 81
