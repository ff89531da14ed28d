"""What predictions should have said, value by value; which truth belongs to which prediction is not decided here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import NamedTuple

import sqlalchemy as sa

from raysys import db
from raysys.store.tables import truths


class Truth(NamedTuple):
    """What the value at `position` of a prediction's output should have been; `at` is when that was known."""

    prediction_id: str
    position: int
    value: float
    source: str
    at: datetime


class Told(NamedTuple):
    """How many truths were new, the same as known, another and later than known, another and earlier."""

    added: int = 0
    repeated: int = 0
    revised: int = 0
    outdated: int = 0


def values(engine: sa.Engine, ids: Sequence[str]) -> dict[str, dict[int, float]]:
    """Return the known truth of these predictions by position."""
    with db.reading(engine) as connection:
        return known(connection, ids)


def known(connection: sa.Connection, ids: Sequence[str]) -> dict[str, dict[int, float]]:
    """Return the same as `values`, inside a transaction."""
    found: dict[str, dict[int, float]] = {id: {} for id in ids}
    query = sa.select(truths.c.prediction_id, truths.c.position, truths.c.value)
    for id, position, value in connection.execute(query.where(truths.c.prediction_id.in_(ids))):
        found[id][position] = value
    return found


def tell(connection: sa.Connection, said: Iterable[Truth]) -> Told:
    """Store truths in the order they became known: of two that differ, the later one counts."""
    latest: dict[tuple[str, int], Truth] = {}
    total = Told()
    for truth in sorted(said, key=lambda each: each.at):
        place = truth.prediction_id, truth.position
        if place in latest:  # one more round, as the same row cannot be written twice at once
            total = _sum(total, _tell_once(connection, latest))
            latest = {}
        latest[place] = truth
    return _sum(total, _tell_once(connection, latest))


def _sum(one: Told, other: Told) -> Told:
    return Told(*(a + b for a, b in zip(one, other, strict=True)))


def _tell_once(connection: sa.Connection, said: dict[tuple[str, int], Truth]) -> Told:
    if not said:
        return Told()
    ids = {id for id, _ in said}
    query = sa.select(truths.c.prediction_id, truths.c.position, truths.c.value, truths.c.at)
    rows = connection.execute(query.where(truths.c.prediction_id.in_(ids)))
    before = {(id, position): (value, at) for id, position, value, at in rows}
    new = [truth for place, truth in said.items() if place not in before]
    other = [t for p, t in said.items() if p in before and before[p][0] != t.value]
    later = [t for t in other if t.at > before[t.prediction_id, t.position][1]]
    added = db.insert_new(connection, truths, [truth._asdict() for truth in new])
    _revise(connection, later)
    return Told(added, len(said) - added - len(other), len(later), len(other) - len(later))


def _revise(connection: sa.Connection, changed: Sequence[Truth]) -> None:
    if not changed:
        return
    place = (
        truths.c.prediction_id == sa.bindparam("of"),
        truths.c.position == sa.bindparam("where"),
    )
    change = sa.update(truths).where(*place)
    change = change.values(
        value=sa.bindparam("now"),
        source=sa.bindparam("who"),
        at=sa.bindparam("when"),
        revisions=truths.c.revisions + 1,
    )
    rows = [
        {"of": t.prediction_id, "where": t.position, "now": t.value, "who": t.source, "when": t.at}
        for t in changed
    ]
    connection.execute(change, rows)
