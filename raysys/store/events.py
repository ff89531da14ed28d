"""What workflow runs report while they go; the engine's own record of steps is not here."""

from __future__ import annotations

import msgspec
import sqlalchemy as sa

from raysys import db
from raysys.records import Event
from raysys.store.tables import events


def append(engine: sa.Engine, event: Event) -> int:
    """Append `event`; return its number, which grows from one event to the next."""
    row = {**msgspec.structs.asdict(event), "fields": msgspec.to_builtins(event.fields)}
    with db.writing(engine) as connection:
        return int(
            connection.execute(sa.insert(events).values(row).returning(events.c.seq)).scalar_one()
        )


def after(engine: sa.Engine, workflow_id: str, seq: int = 0) -> list[tuple[int, Event]]:
    """Return the events of `workflow_id` numbered above `seq`, in order, with their numbers."""
    columns = (events.c[name] for name in Event.__struct_fields__)
    query = sa.select(events.c.seq, *columns).where(
        events.c.workflow_id == workflow_id, events.c.seq > seq
    )
    with db.reading(engine) as connection:
        rows = connection.execute(query.order_by(events.c.seq)).all()
    return [
        (row.seq, Event(**{n: row._mapping[n] for n in Event.__struct_fields__})) for row in rows
    ]
