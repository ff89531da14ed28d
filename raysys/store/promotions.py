"""The moves of aliases, only ever appended: the database itself refuses to change or delete one."""

from __future__ import annotations

from datetime import datetime

import msgspec
import sqlalchemy as sa

from raysys import db
from raysys.records import Promotion
from raysys.store.tables import promotions


def append(engine: sa.Engine, promotion: Promotion) -> bool:
    """Append `promotion`; return False when one with its id is there already."""
    row = {**msgspec.structs.asdict(promotion), "report": msgspec.to_builtins(promotion.report)}
    with db.writing(engine) as connection:
        return db.insert_new(connection, promotions, [row]) == 1


def history(engine: sa.Engine, family: str | None = None, limit: int = 50) -> list[Promotion]:
    """Return the moves of `family`, or of every family, newest first."""
    query = sa.select(*(promotions.c[name] for name in Promotion.__struct_fields__))
    query = query.order_by(promotions.c.seq.desc()).limit(limit)
    if family is not None:
        query = query.where(promotions.c.family == family)
    with db.reading(engine) as connection:
        return [Promotion(**row._mapping) for row in connection.execute(query)]


def counts(engine: sa.Engine, family: str) -> dict[str, int]:
    """Return how many moves of `family` there were, by action."""
    query = sa.select(promotions.c.action, sa.func.count()).group_by(promotions.c.action)
    with db.reading(engine) as connection:
        rows = connection.execute(query.where(promotions.c.family == family))
        return {str(action): int(count) for action, count in rows}


def first_at(engine: sa.Engine, family: str, version: str) -> datetime | None:
    """Return when `version` was made champion for the first time."""
    query = sa.select(promotions.c.at).order_by(promotions.c.seq).limit(1)
    where = (promotions.c.family == family, promotions.c.to_version == version)
    with db.reading(engine) as connection:
        at: datetime | None = connection.execute(query.where(*where)).scalar()
        return at
