"""What the policies of the families decided: rows are only added, and forgotten when they are old."""

from __future__ import annotations

from datetime import datetime

import msgspec
import sqlalchemy as sa

from raysys import db
from raysys.records import Act
from raysys.store.tables import decisions


def append(engine: sa.Engine, act: Act) -> Act:
    """Append `act` unless its id is there; return what the table holds under that id."""
    row = {**msgspec.structs.asdict(act), "evidence": msgspec.to_builtins(act.evidence)}
    with db.writing(engine) as connection:
        db.insert_new(connection, decisions, [row])
        found = connection.execute(_columns().where(decisions.c.id == act.id)).one()
    return Act(**found._mapping)


def find(engine: sa.Engine, id: str) -> Act | None:
    """Return the decision of this id, or None."""
    with db.reading(engine) as connection:
        row = connection.execute(_columns().where(decisions.c.id == id)).one_or_none()
    return None if row is None else Act(**row._mapping)


def history(engine: sa.Engine, family: str, limit: int = 50) -> list[Act]:
    """Return the decisions about `family`, newest first."""
    query = _columns().where(decisions.c.family == family)
    query = query.order_by(decisions.c.at.desc(), decisions.c.id.desc()).limit(limit)
    with db.reading(engine) as connection:
        return [Act(**row._mapping) for row in connection.execute(query)]


def forget(engine: sa.Engine, before: datetime, dry_run: bool) -> int:
    """Remove the decisions from before `before`, or only count them; return how many."""
    old = decisions.c.at < before
    with db.writing(engine) as connection:
        if dry_run:
            count = sa.select(sa.func.count()).select_from(decisions).where(old)
            return int(connection.execute(count).scalar_one())
        return int(connection.execute(sa.delete(decisions).where(old)).rowcount)


def _columns() -> sa.Select[tuple[object, ...]]:
    return sa.select(*(decisions.c[name] for name in Act.__struct_fields__))
