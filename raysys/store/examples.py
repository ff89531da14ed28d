"""Labelled rows of the tabular families; what a row means is the family's business."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec
import sqlalchemy as sa

from raysys import db
from raysys.records import Origin, Rejection
from raysys.store import quarantine
from raysys.store.tables import examples

if TYPE_CHECKING:
    import pandas as pd

SIMULATED = "simulated"
"""The source of rows that nobody observed: they are left out as soon as there are others."""


def add(
    engine: sa.Engine,
    *,
    family: str,
    rows: list[dict[str, Any]],
    source: str,
    workflow_id: str | None,
    now: datetime,
    rejections: Sequence[Rejection] = (),
) -> tuple[int, int]:
    """Store rows and refused rows in one transaction; return how many were new and known.

    A row that stands in `rows` twice is stored twice, once; the same rows again add nothing.
    """
    rest = {"family": family, "source": source[:255], "workflow_id": workflow_id, "stored_at": now}
    with db.writing(engine) as connection:
        start = _next_position(connection, family)
        keyed = [
            {**key, "position": start + i, "values": row, **rest}
            for i, (key, row) in enumerate(zip(_keys(rows, source), rows, strict=True))
        ]
        new = db.insert_new(connection, examples, keyed)
        quarantine.put(
            connection, rejections, family=family, source=source, workflow_id=workflow_id, now=now
        )
    return new, len(rows) - new


def _keys(rows: list[dict[str, Any]], source: str) -> list[dict[str, Any]]:
    """Name each row by its content and by how often the same content stood before it.

    A simulated row has another name than an observed one that happens to be the same.
    """
    salt = SIMULATED.encode() if source == SIMULATED else b""
    seen: Counter[str] = Counter()
    keys = []
    for row in rows:
        key = hashlib.sha256(salt + msgspec.json.encode(row, order="sorted")).hexdigest()
        keys.append({"key": key, "occurrence": seen[key]})
        seen[key] += 1
    return keys


def _next_position(connection: sa.Connection, family: str) -> int:
    query = sa.select(sa.func.max(examples.c.position)).where(examples.c.family == family)
    last = connection.execute(query).scalar_one()
    return 0 if last is None else last + 1


def read(engine: sa.Engine, family: str, stored_by: datetime | None = None) -> pd.DataFrame:
    """Return the rows of `family` in the order they came, perhaps as stored by then; columns in alphabetical order.

    Simulated rows are left out when there are others: no model is made of a mixture.
    """
    import pandas as pd

    query = (
        sa.select(examples.c["values"])
        .where(examples.c.family == family, _wanted(family, stored_by))
        .order_by(examples.c.position, examples.c.key, examples.c.occurrence)
    )
    with db.reading(engine) as connection:
        rows = connection.execute(query).scalars().all()
    frame = pd.DataFrame(list(rows))
    return frame[sorted(frame.columns)]


def origins(engine: sa.Engine, family: str, stored_by: datetime) -> list[Origin]:
    """Return which runs or imports stored the rows that `read` gives as stored by then, oldest first."""
    who = (examples.c.source, examples.c.workflow_id)
    stored_at = sa.func.max(examples.c.stored_at)
    query = sa.select(*who, sa.func.count().label("rows"), stored_at.label("stored_at"))
    query = query.where(examples.c.family == family, _wanted(family, stored_by))
    with db.reading(engine) as connection:
        rows = connection.execute(query.group_by(*who).order_by(stored_at))
        return [Origin(**row._mapping) for row in rows]


def count(engine: sa.Engine, family: str, since: datetime | None = None) -> int:
    """Return how many rows `read` gives; with `since`, only those that were stored after it."""
    mine = examples.c.family == family
    query = sa.select(sa.func.count()).select_from(examples).where(mine, _wanted(family))
    query = query if since is None else query.where(examples.c.stored_at > since)
    with db.reading(engine) as connection:
        return int(connection.execute(query).scalar_one())


def _wanted(family: str, stored_by: datetime | None = None) -> sa.ColumnElement[bool]:
    other = examples.alias()
    observed = sa.exists().where(other.c.family == family, other.c.source != SIMULATED)
    if stored_by is None:
        return sa.or_(examples.c.source != SIMULATED, sa.not_(observed))
    observed = observed.where(other.c.stored_at <= stored_by)
    wanted = sa.or_(examples.c.source != SIMULATED, sa.not_(observed))
    return sa.and_(examples.c.stored_at <= stored_by, wanted)


def newest(engine: sa.Engine, family: str) -> datetime | None:
    """Return when a row of `family` was stored last, or None without rows."""
    query = sa.select(sa.func.max(examples.c.stored_at)).where(examples.c.family == family)
    with db.reading(engine) as connection:
        found: datetime | None = connection.execute(query).scalar_one()
        return found
