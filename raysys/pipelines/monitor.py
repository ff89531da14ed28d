"""How fresh and whole the data is, and how the runs went: numbers by family and workflow, read from SQL only."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta

import sqlalchemy as sa

from raysys.durable import Client
from raysys.families.base import Family, Series
from raysys.records import Level
from raysys.settings import Settings
from raysys.sources import series_name
from raysys.store import examples, ledger, observations

GAP_DAYS = 30
RUN_DAYS = 1
HOUR = timedelta(hours=1)


def data_levels(
    engine: sa.Engine, family: Family, settings: Settings, now: datetime
) -> list[Level]:
    """Return how many rows of `family` there are and how old the newest is; of hours, the latest gaps too."""
    labels = {"family": family.name}
    if not isinstance(family.data, Series):
        rows, newest = examples.count(engine, family.name), examples.newest(engine, family.name)
        return [_rows(rows, labels), *_age(newest, now, labels)]
    series = series_name(settings)
    _, last, rows = observations.span(engine, series)
    levels = [_rows(rows, labels), *_age(last, now, labels)]
    return levels if last is None else [*levels, *_gaps(engine, settings, series, last, labels)]


def _rows(rows: int, labels: dict[str, str]) -> Level:
    return Level(name="data_rows", value=rows, labels=labels)


def _age(newest: datetime | None, now: datetime, labels: dict[str, str]) -> list[Level]:
    if newest is None:
        return []
    return [Level(name="data_age_hours", value=(now - newest) / HOUR, labels=labels)]


def _gaps(
    engine: sa.Engine, settings: Settings, series: str, last: datetime, labels: dict[str, str]
) -> list[Level]:
    since = last - timedelta(days=GAP_DAYS)
    stored = observations.count(engine, series, since + HOUR, last)
    days = ledger.days(engine, settings.atmos_source, series, since.date(), last.date())
    failed = sum(day.state == "failed" for day in days)
    return [
        Level(name="data_missing_hours", value=GAP_DAYS * 24 - stored, labels=labels),
        Level(name="data_failed_days", value=failed, labels=labels),
    ]


def run_levels(client: Client, now: datetime) -> list[Level]:
    """Return how many runs of each workflow ended in the last day or still go on, by status."""
    counts: Counter[tuple[str, str]] = Counter()
    for run in client.list(limit=1_000):
        if not run.ended or run.status == "RESUMABLE" or _recent(run.ended_at, now):
            counts[run.name, run.status] += 1
    return [
        Level(name="recent_runs", value=n, labels={"workflow": name, "status": status})
        for (name, status), n in sorted(counts.items())
    ]


def _recent(ended_at: datetime | None, now: datetime) -> bool:
    return ended_at is not None and ended_at > now - timedelta(days=RUN_DAYS)
