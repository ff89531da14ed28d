"""Truth as it was sent in, kept at once and joined later; which predictions it is about is not known here."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta

import msgspec
import sqlalchemy as sa

from raysys import db
from raysys.records import Feedback
from raysys.store.tables import feedback

MATCHED, UNMATCHED = "matched", "unmatched"


class Kept(Feedback, frozen=True, kw_only=True):
    """Feedback as it is kept: under its `id`, with where it came from and when it was said last."""

    id: str
    source: str
    at: datetime


_COLUMNS = [feedback.c[name] for name in Kept.__struct_fields__]


def add(
    engine: sa.Engine, family: str, said: Sequence[Feedback], *, source: str, now: datetime
) -> tuple[int, int]:
    """Keep `said`, to be joined; return how much of it was new and known. Said again, it counts as said now."""
    # A microsecond each, so that of two that differ the one that stands later is the later one.
    moments = (now + timedelta(microseconds=place) for place in range(len(said)))
    rows = {}
    for each, at in zip(said, moments, strict=True):
        id = _id(family, each)
        rest = {"family": family, "source": source[:255], "at": at}
        rows[id] = {**msgspec.structs.asdict(each), **rest, "id": id}
    with db.writing(engine) as connection:
        new = db.insert_new(connection, feedback, list(rows.values()))
        if new < len(rows):
            _repeat(connection, list(rows.values()))
    return new, len(said) - new


def _id(family: str, said: Feedback) -> str:
    content = msgspec.json.encode({"family": family, **msgspec.to_builtins(said)}, order="sorted")
    return hashlib.sha256(content).hexdigest()


def _repeat(connection: sa.Connection, rows: Sequence[Mapping[str, object]]) -> None:
    """Let what was there before these `rows` count as said now."""
    change = sa.update(feedback).where(
        feedback.c.id == sa.bindparam("of"), feedback.c.at < sa.bindparam("now")
    )
    change = change.values(at=sa.bindparam("now"), times=feedback.c.times + 1, outcome=None)
    connection.execute(change, [{"of": row["id"], "now": row["at"]} for row in rows])


def batches(engine: sa.Engine, family: str, size: int) -> Iterator[list[Kept]]:
    """Yield what is to be joined, in the order it was said."""
    at, id = feedback.c.at, feedback.c.id
    query = sa.select(*_COLUMNS).where(feedback.c.family == family, feedback.c.outcome.is_(None))
    query = query.order_by(at, id).limit(size)
    last: Kept | None = None
    while True:
        after = () if last is None else (sa.or_(at > last.at, (at == last.at) & (id > last.id)),)
        with db.reading(engine) as connection:
            batch = [Kept(**row._mapping) for row in connection.execute(query.where(*after))]
        if not batch:
            return
        yield batch
        last = batch[-1]


def settle(connection: sa.Connection, outcomes: Mapping[str, str]) -> None:
    """Note how the join of these ids went."""
    if not outcomes:
        return
    change = sa.update(feedback).where(feedback.c.id == sa.bindparam("of"))
    change = change.values(outcome=sa.bindparam("how"))
    connection.execute(change, [{"of": id, "how": how} for id, how in outcomes.items()])


def forget(engine: sa.Engine, before: datetime, dry_run: bool) -> int:
    """Remove what was said before `before`, or only count it; return how much."""
    old = feedback.c.at < before
    with db.writing(engine) as connection:
        if dry_run:
            count = sa.select(sa.func.count()).select_from(feedback).where(old)
            return int(connection.execute(count).scalar_one())
        return int(connection.execute(sa.delete(feedback).where(old)).rowcount)
