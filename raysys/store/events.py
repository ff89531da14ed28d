"""What workflow runs report while they go; the engine's own record of steps is not here."""

from __future__ import annotations

from collections.abc import Sequence

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


def forget(engine: sa.Engine, workflow_ids: Sequence[str]) -> int:
    """Remove the events of these runs; return how many there were."""
    with db.writing(engine) as connection:
        gone = connection.execute(sa.delete(events).where(events.c.workflow_id.in_(workflow_ids)))
        return int(gone.rowcount)


def mentioned(engine: sa.Engine, step: str, field: str) -> set[str]:
    """Return the values that events of `step` hold in `field`, of every run."""
    query = sa.select(events.c.fields).where(events.c.step == step)
    with db.reading(engine) as connection:
        return {row[field] for row in connection.execute(query).scalars() if field in row}


def latest(engine: sa.Engine, step: str, family: str) -> Event | None:
    """Return what was told last by a step of this name about `family`, or None."""
    columns = (events.c[name] for name in Event.__struct_fields__)
    query = sa.select(*columns).where(
        events.c.step == step, events.c.fields["family"].as_string() == family
    )
    with db.reading(engine) as connection:
        row = connection.execute(query.order_by(events.c.seq.desc()).limit(1)).first()
    return None if row is None else Event(**row._mapping)


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
