"""Which days of a source were asked for and how it went; the hours are in `observations`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from typing import Any, Literal

import sqlalchemy as sa

from raysys import db
from raysys.records import Record
from raysys.store.tables import crawl_ledger


class Day(Record, frozen=True, kw_only=True):
    """One day of a source's calendar, and how many `hours` of it the source gave.

    `complete`: all there is was given; `partial`: not all was published yet; `failed`: ask again.
    """

    day: date
    state: Literal["complete", "partial", "failed"]
    hours: int = 0
    error: str | None = None


def put(
    connection: sa.Connection,
    days: Sequence[Day],
    *,
    source: str,
    series: str,
    workflow_id: str | None,
    now: datetime,
) -> None:
    """Write `days` inside the caller's transaction; a day that is complete stays so."""
    if not days:
        return
    insert = db.insert_statement(connection, crawl_ledger)
    changed = {
        name: insert.excluded[name] for name in ("state", "hours", "error", "workflow_id", "at")
    }
    statement = insert.on_conflict_do_update(
        index_elements=["source", "series", "day"],
        set_=changed,
        where=sa.or_(crawl_ledger.c.state != "complete", insert.excluded.state == "complete"),
    )
    rest = {"source": source, "series": series, "workflow_id": workflow_id, "at": now}
    rows = [
        {"day": d.day, "state": d.state, "hours": d.hours, "error": d.error, **rest} for d in days
    ]
    connection.execute(statement, rows)


def complete_days(
    engine: sa.Engine, source: str, series: str, since: date, until: date
) -> set[date]:
    """Return the days from `since` to `until`, both included, that need not be asked for again."""
    query = _of(source, series, sa.select(crawl_ledger.c.day)).where(
        crawl_ledger.c.state == "complete", crawl_ledger.c.day.between(since, until)
    )
    with db.reading(engine) as connection:
        return set(connection.execute(query).scalars())


def first_day(engine: sa.Engine, source: str, series: str) -> date | None:
    """Return the first day that was ever asked for, or None."""
    with db.reading(engine) as connection:
        query = _of(source, series, sa.select(sa.func.min(crawl_ledger.c.day)))
        day: date | None = connection.execute(query).scalar_one()
        return day


def days(engine: sa.Engine, source: str, series: str, since: date, until: date) -> list[Day]:
    """Return the known days from `since` to `until`, in order; one never asked for is absent."""
    columns = (crawl_ledger.c.day, crawl_ledger.c.state, crawl_ledger.c.hours, crawl_ledger.c.error)
    query = _of(source, series, sa.select(*columns)).where(crawl_ledger.c.day.between(since, until))
    with db.reading(engine) as connection:
        rows = connection.execute(query.order_by(crawl_ledger.c.day))
        return [Day(day=row.day, state=row.state, hours=row.hours, error=row.error) for row in rows]


def mark_failed(
    engine: sa.Engine,
    *,
    source: str,
    series: str,
    days: Sequence[date],
    error: str,
    workflow_id: str | None,
    now: datetime,
) -> None:
    """Note that `days` could not be had: the next crawl asks again. A complete day stays so."""
    entries = [Day(day=day, state="failed", error=error) for day in days]
    with db.writing(engine) as connection:
        put(connection, entries, source=source, series=series, workflow_id=workflow_id, now=now)


def _of(source: str, series: str, query: sa.Select[Any]) -> sa.Select[Any]:
    return query.where(crawl_ledger.c.source == source, crawl_ledger.c.series == series)
