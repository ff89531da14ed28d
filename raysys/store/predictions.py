"""Predictions that were served, and how far each is with its truth; the truth itself is in `truths`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import sqlalchemy as sa

from raysys import db
from raysys.errors import NotFound
from raysys.store.tables import predictions

UNPLACED, WAITING, COMPLETE = "unplaced", "waiting", "complete"
EXPIRED, SKIPPED = "expired", "skipped"
OPEN = (UNPLACED, WAITING)
SAMPLED = (*OPEN, COMPLETE, EXPIRED)

HOUR = timedelta(hours=1)
FIRST_MINUTES = timedelta(minutes=6)


class Logged(NamedTuple):
    """A prediction as it was logged; `truth` is how far the join came with it."""

    id: str
    request_id: str
    version: str
    at: datetime
    inputs: Any
    outputs: Any
    row: int
    key: str | None
    anchor: datetime | None
    truth: str | None


_COLUMNS = [predictions.c[name] for name in Logged._fields]


def append_many(engine: sa.Engine, rows: Sequence[dict[str, Any]]) -> int:
    """Append `rows` (the columns of the table); return how many of their ids were new."""
    with db.writing(engine) as connection:
        return db.insert_new(connection, predictions, rows)


def batches(
    engine: sa.Engine,
    family: str,
    *,
    states: Sequence[str],
    size: int,
    version: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> Iterator[list[Logged]]:
    """Yield the predictions in one of `states`, made from `since` to before `until`, oldest first."""
    at, id = predictions.c.at, predictions.c.id
    query = sa.select(*_COLUMNS).where(predictions.c.family == family)
    query = query.where(predictions.c.truth.in_(states)).order_by(at, id).limit(size)
    query = query if version is None else query.where(predictions.c.version == version)
    query = query if since is None else query.where(at >= since)
    query = query if until is None else query.where(at < until)
    last: Logged | None = None
    while True:
        after = () if last is None else (sa.or_(at > last.at, (at == last.at) & (id > last.id)),)
        with db.reading(engine) as connection:
            batch = [Logged(*row) for row in connection.execute(query.where(*after))]
        if not batch:
            return
        yield batch
        last = batch[-1]


def find(engine: sa.Engine, name: str) -> list[tuple[str, Logged]]:
    """Return the predictions with this id, or of this request, in order, each after its family.

    Raises NotFound.
    """
    query = sa.select(predictions.c.family, *_COLUMNS)
    query = query.where(sa.or_(predictions.c.id == name, predictions.c.request_id == name))
    with db.reading(engine) as connection:
        rows = connection.execute(query.order_by(predictions.c.at, predictions.c.row)).all()
    if not rows:
        raise NotFound(
            f"There is no logged prediction and no logged request {name}: it may be too old, not of "
            "the sample that is logged, or not written yet (that takes a second).",
            id=name,
        )
    return [(row[0], Logged(*row[1:])) for row in rows]


def versions(engine: sa.Engine, family: str, since: datetime) -> list[str]:
    """Return the versions of `family` that were asked since then."""
    query = sa.select(predictions.c.version).distinct()
    query = query.where(predictions.c.family == family, predictions.c.at >= since)
    with db.reading(engine) as connection:
        return list(connection.execute(query).scalars())


def spoken_of(
    connection: sa.Connection, family: str, names: Mapping[str, Sequence[str]], most: int
) -> list[Logged]:
    """Return the newest `most` predictions whose `request_id` or `key` is among the `names` of it.

    They stay there until the transaction ends.
    """
    named = sa.or_(*(predictions.c[column].in_(values) for column, values in names.items()))
    query = sa.select(*_COLUMNS).where(predictions.c.family == family, named)
    query = query.order_by(predictions.c.at.desc(), predictions.c.id).limit(most)
    query = query.with_for_update(read=True)
    return [Logged(*row) for row in connection.execute(query)]


def hold(connection: sa.Connection, ids: Sequence[str]) -> set[str]:
    """Return those of `ids` that are there, and keep them so until the transaction ends."""
    query = sa.select(predictions.c.id).where(predictions.c.id.in_(ids))
    return set(connection.execute(query.with_for_update(read=True)).scalars())


def mark(connection: sa.Connection, states: Mapping[str, str]) -> None:
    """Note how far the join came with each of these ids."""
    if not states:
        return
    change = sa.update(predictions).where(predictions.c.id == sa.bindparam("of"))
    change = change.values(truth=sa.bindparam("state"))
    connection.execute(change, [{"of": id, "state": state} for id, state in states.items()])


def place(engine: sa.Engine, anchors: Mapping[str, datetime]) -> None:
    """Note the hour of the last input value of each of these ids; they then wait for their truth."""
    if not anchors:
        return
    change = sa.update(predictions).where(predictions.c.id == sa.bindparam("of"))
    change = change.values(anchor=sa.bindparam("hour"), truth=WAITING)
    with db.writing(engine) as connection:
        connection.execute(change, [{"of": id, "hour": hour} for id, hour in anchors.items()])


def expire(engine: sa.Engine, family: str, before: datetime, states: Sequence[str] = OPEN) -> int:
    """Let predictions from before `before` that are in one of `states` wait no longer; count them."""
    mine = (predictions.c.family == family, predictions.c.truth.in_(states))
    change = sa.update(predictions).where(*mine, predictions.c.at < before).values(truth=EXPIRED)
    with db.writing(engine) as connection:
        return int(connection.execute(change).rowcount)


# -- the sample ------------------------------------------------------------------------------------


def take_all(engine: sa.Engine, family: str) -> None:
    """Let every prediction that was not looked at yet wait for its truth."""
    with db.writing(engine) as connection:
        connection.execute(sa.update(predictions).where(_fresh(family)).values(truth=WAITING))


def take_sample(engine: sa.Engine, family: str, *, per_hour: int, now: datetime) -> int:
    """Let `per_hour` predictions of each version and hour wait for their truth; count those skipped.

    Ids are random, so that the lowest are a fair sample. Of the hour that `now` is in, a part is
    taken that grows with it, and none is skipped yet.
    """
    skipped, start = 0, _oldest(engine, family, None)
    while start is not None:
        over = start + HOUR <= now
        share = 1.0 if over else max(now - start, FIRST_MINUTES) / HOUR
        with db.writing(engine) as connection:
            _take_hour(connection, family, start, int(per_hour * share))
            if over:
                skipped += _skip_hour(connection, family, start)
        start = _oldest(engine, family, start + HOUR)
    return skipped


def _fresh(family: str) -> sa.ColumnElement[bool]:
    return sa.and_(predictions.c.family == family, predictions.c.truth.is_(None))


def _of_hour(start: datetime) -> sa.ColumnElement[bool]:
    return sa.and_(predictions.c.at >= start, predictions.c.at < start + HOUR)


def _oldest(engine: sa.Engine, family: str, since: datetime | None) -> datetime | None:
    """Return the hour of the oldest prediction since `since` that was not looked at yet."""
    query = sa.select(sa.func.min(predictions.c.at)).where(_fresh(family))
    query = query if since is None else query.where(predictions.c.at >= since)
    with db.reading(engine) as connection:
        at: datetime | None = connection.execute(query).scalar_one()
    return at and at.replace(minute=0, second=0, microsecond=0)


def _take_hour(connection: sa.Connection, family: str, start: datetime, most: int) -> None:
    versions = sa.select(predictions.c.version).where(_fresh(family), _of_hour(start)).distinct()
    taken = sa.select(predictions.c.version, sa.func.count()).where(
        predictions.c.family == family, _of_hour(start), predictions.c.truth.in_(SAMPLED)
    )
    counts = {row[0]: row[1] for row in connection.execute(taken.group_by(predictions.c.version))}
    for version in connection.execute(versions).scalars().all():
        room = max(most - counts.get(version, 0), 0)
        chosen = (
            sa.select(predictions.c.id)
            .where(_fresh(family), _of_hour(start), predictions.c.version == version)
            .order_by(predictions.c.id)
            .limit(room)
        )
        state = sa.case((predictions.c.anchor.is_(None), UNPLACED), else_=WAITING)
        change = sa.update(predictions).where(predictions.c.id.in_(chosen)).values(truth=state)
        connection.execute(change)


def _skip_hour(connection: sa.Connection, family: str, start: datetime) -> int:
    change = sa.update(predictions).where(_fresh(family), _of_hour(start)).values(truth=SKIPPED)
    return int(connection.execute(change).rowcount)


# -- counting and forgetting -----------------------------------------------------------------------


def counts(
    engine: sa.Engine, family: str, since: datetime, until: datetime
) -> dict[str, tuple[int, int]]:
    """Return how many predictions of the sample each version made in that time, and how many have their hour."""
    query = sa.select(predictions.c.version, sa.func.count(), sa.func.count(predictions.c.anchor))
    query = query.where(
        predictions.c.family == family,
        predictions.c.at >= since,
        predictions.c.at < until,
        predictions.c.truth.in_(SAMPLED),
    )
    with db.reading(engine) as connection:
        rows = connection.execute(query.group_by(predictions.c.version)).all()
    return {version: (made, placed) for version, made, placed in rows}


def count(engine: sa.Engine, family: str, state: str) -> int:
    """Return how many predictions of `family` are in `state`."""
    query = sa.select(sa.func.count()).select_from(predictions)
    query = query.where(predictions.c.family == family, predictions.c.truth == state)
    with db.reading(engine) as connection:
        return int(connection.execute(query).scalar_one())


def forget(engine: sa.Engine, before: datetime, most: int, dry_run: bool) -> int:
    """Remove predictions older than `before`, and of more than `most` the oldest; return how many.

    Their truths go with them. With `dry_run` they are counted only.
    """
    at = predictions.c.at
    with db.writing(engine) as connection:
        surplus = connection.execute(
            sa.select(at).order_by(at.desc()).offset(most - 1).limit(1)
        ).scalar()
        limit = before if surplus is None else max(before, surplus)
        if dry_run:
            count = sa.select(sa.func.count()).select_from(predictions).where(at < limit)
            return int(connection.execute(count).scalar_one())
        return int(connection.execute(sa.delete(predictions).where(at < limit)).rowcount)
