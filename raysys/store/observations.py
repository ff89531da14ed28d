"""The hours of weather series, as they were observed; nothing is interpolated or judged here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import sqlalchemy as sa

from raysys import db
from raysys.records import Origin, Rejection
from raysys.store import ledger, quarantine
from raysys.store.tables import WEATHER_COLUMNS, observations

if TYPE_CHECKING:
    import pandas as pd


def store_window(
    engine: sa.Engine,
    *,
    family: str,
    source: str,
    series: str,
    frame: pd.DataFrame,
    rejections: Sequence[Rejection],
    days: Sequence[ledger.Day],
    workflow_id: str | None,
    now: datetime,
) -> tuple[int, int]:
    """Store hours, refused rows and ledger days in one transaction; count new and known hours.

    `frame` has `time` (aware) and the WEATHER_COLUMNS, each time once. A known hour keeps its
    values; only a missing one may be filled.
    """
    rest = {"series": series, "source": source, "workflow_id": workflow_id, "stored_at": now}
    rows = [{**hour, **rest} for hour in _hours(frame)]
    with db.writing(engine) as connection:
        new = db.insert_new(connection, observations, rows)
        if new < len(rows):
            _fill(connection, series, rows)
        quarantine.put(
            connection, rejections, family=family, source=source, workflow_id=workflow_id, now=now
        )
        ledger.put(connection, days, source=source, series=series, workflow_id=workflow_id, now=now)
    return new, len(rows) - new


def _hours(frame: pd.DataFrame) -> list[dict[str, Any]]:
    times = [stamp.to_pydatetime() for stamp in frame["time"]]
    values = frame[list(WEATHER_COLUMNS)].to_numpy(dtype=float, na_value=math.nan).tolist()
    return [
        {
            "time": time,
            **{n: None if math.isnan(v) else v for n, v in zip(WEATHER_COLUMNS, row, strict=True)},
        }
        for time, row in zip(times, values, strict=True)
    ]


def _fill(connection: sa.Connection, series: str, rows: Sequence[dict[str, Any]]) -> None:
    """Give known hours the values that they lack and `rows` have."""
    times = [row["time"] for row in rows]
    key = sa.and_(
        observations.c.series == series, observations.c.time.between(min(times), max(times))
    )
    holes = {
        row.time: row
        for row in connection.execute(sa.select(observations).where(key, _incomplete()))
    }
    for row in rows:
        hole = holes.get(row["time"])
        found = {
            n: row[n]
            for n in WEATHER_COLUMNS
            if hole and hole._mapping[n] is None and row[n] is not None
        }
        if found:
            where = (observations.c.series == series, observations.c.time == row["time"])
            connection.execute(
                sa.update(observations).where(*where).values(**found, stored_at=row["stored_at"])
            )


def _incomplete() -> sa.ColumnElement[bool]:
    return sa.or_(*(observations.c[name].is_(None) for name in WEATHER_COLUMNS))


def read(
    engine: sa.Engine,
    series: str,
    since: datetime | None = None,
    until: datetime | None = None,
    stored_by: datetime | None = None,
) -> pd.DataFrame:
    """Return the hours of `series` from `since` to `until`, both included, in order; perhaps as stored by then.

    Columns: `time` (datetime64[ns, UTC]) and the WEATHER_COLUMNS (float64, NaN where missing).
    """
    import pandas as pd

    query = sa.select(observations.c.time, *(observations.c[n] for n in WEATHER_COLUMNS))
    query = query.where(observations.c.series == series).order_by(observations.c.time)
    if since is not None:
        query = query.where(observations.c.time >= since)
    if until is not None:
        query = query.where(observations.c.time <= until)
    if stored_by is not None:
        query = query.where(observations.c.stored_at <= stored_by)
    with db.reading(engine) as connection:
        rows = connection.execute(query).all()
    frame = pd.DataFrame([tuple(row) for row in rows], columns=["time", *WEATHER_COLUMNS])
    kinds = {"time": "datetime64[ns, UTC]", **dict.fromkeys(WEATHER_COLUMNS, "float64")}
    return frame.astype(kinds)


class Measured(NamedTuple):
    """One stored value, and where and when it came from."""

    value: float
    source: str
    stored_at: datetime


def measured(
    engine: sa.Engine, series: str, column: str, since: datetime, until: datetime
) -> dict[datetime, Measured]:
    """Return the values of one column by hour, from `since` to `until`, both included; none that lack."""
    value = observations.c[column]
    query = sa.select(observations.c.time, value, observations.c.source, observations.c.stored_at)
    query = query.where(
        observations.c.series == series,
        observations.c.time.between(since, until),
        value.is_not(None),
    )
    with db.reading(engine) as connection:
        return {row[0]: Measured(*row[1:]) for row in connection.execute(query)}


def span(engine: sa.Engine, series: str) -> tuple[datetime | None, datetime | None, int]:
    """Return the first and the last hour of `series` and how many hours it has."""
    time = observations.c.time
    query = sa.select(sa.func.min(time), sa.func.max(time), sa.func.count()).where(
        observations.c.series == series
    )
    with db.reading(engine) as connection:
        first, last, rows = connection.execute(query).one()
        return first, last, rows


def sources(engine: sa.Engine, series: str) -> dict[str, int]:
    """Return how many hours of `series` came from each source."""
    query = (
        sa.select(observations.c.source, sa.func.count())
        .where(observations.c.series == series)
        .group_by(observations.c.source)
        .order_by(observations.c.source)
    )
    with db.reading(engine) as connection:
        return {row[0]: row[1] for row in connection.execute(query)}


def names(engine: sa.Engine) -> list[str]:
    """Return every series that has hours."""
    with db.reading(engine) as connection:
        found = connection.execute(sa.select(observations.c.series).distinct()).scalars()
        return sorted(found)


def origins(
    engine: sa.Engine, series: str, since: datetime, until: datetime, stored_by: datetime
) -> list[Origin]:
    """Return which runs stored the hours from `since` to `until` that were there by then, oldest hours first."""
    time, stored_at = observations.c.time, observations.c.stored_at
    who = (observations.c.source, observations.c.workflow_id)
    query = sa.select(
        *who,
        sa.func.count().label("rows"),
        sa.func.min(time).label("time_from"),
        sa.func.max(time).label("time_to"),
        sa.func.max(stored_at).label("stored_at"),
    )
    query = query.where(
        observations.c.series == series, time.between(since, until), stored_at <= stored_by
    )
    with db.reading(engine) as connection:
        rows = connection.execute(query.group_by(*who).order_by(sa.func.min(time)))
        return [Origin(**row._mapping) for row in rows]


def stored_since(engine: sa.Engine, series: str, until: datetime, since: datetime) -> int:
    """Return how many hours up to `until` were stored, or filled, after `since`."""
    query = sa.select(sa.func.count()).select_from(observations)
    query = query.where(
        observations.c.series == series,
        observations.c.time <= until,
        observations.c.stored_at > since,
    )
    with db.reading(engine) as connection:
        return int(connection.execute(query).scalar_one())


def newest(engine: sa.Engine, series: str) -> datetime | None:
    """Return when a row of `series` was stored last, or None without rows."""
    query = sa.select(sa.func.max(observations.c.stored_at)).where(observations.c.series == series)
    with db.reading(engine) as connection:
        found: datetime | None = connection.execute(query).scalar_one()
        return found


def count(engine: sa.Engine, series: str, since: datetime, until: datetime) -> int:
    """Return how many hours of `series` are stored from `since` to `until`, both included."""
    query = (
        sa.select(sa.func.count())
        .where(observations.c.series == series)
        .where(observations.c.time.between(since, until))
    )
    with db.reading(engine) as connection:
        return int(connection.execute(query).scalar_one())
