"""How fresh and whole the data is, how old the champion, how the runs went, how full the disk: numbers, no HTTP."""

from __future__ import annotations

import shutil
from collections import Counter
from datetime import datetime, timedelta
from pathlib import Path

import sqlalchemy as sa

from raysys.durable import Client
from raysys.families.base import Family, Series
from raysys.records import Level
from raysys.settings import Settings
from raysys.sources import series_name
from raysys.store import examples, ledger, observations, promotions

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


def model_levels(engine: sa.Engine, family: Family, now: datetime) -> list[Level]:
    """Return how often the champion of `family` changed, and how old the one of now is."""
    labels = {"family": family.name}
    counts = {"promote": 0, "rollback": 0, **promotions.counts(engine, family.name)}
    levels = [
        Level(name="promotions", value=count, labels={**labels, "action": action})
        for action, count in counts.items()
    ]
    latest = promotions.history(engine, family.name, limit=1)
    first = promotions.first_at(engine, family.name, latest[0].to_version) if latest else None
    if first is not None:
        age = (now - first) / HOUR
        levels.append(Level(name="model_age_hours", value=age, labels=labels))
    return levels


def disk_levels(home: Path) -> list[Level]:
    """Return how large the disk is that `home` is on, and how much of it is free."""
    usage = shutil.disk_usage(home)
    return [
        Level(name="disk_free_bytes", value=usage.free, labels={}),
        Level(name="disk_size_bytes", value=usage.total, labels={}),
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
