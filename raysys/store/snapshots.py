"""The register of snapshots; their Parquet files are in the artifact store."""

from __future__ import annotations

from typing import Any

import msgspec
import sqlalchemy as sa

from raysys import db
from raysys.errors import NotFound
from raysys.records import Gap, Snapshot
from raysys.store.tables import snapshots


def add(engine: sa.Engine, snapshot: Snapshot, workflow_id: str | None = None) -> Snapshot:
    """Register `snapshot` unless its hash is there; return what the register holds."""
    row = {
        **msgspec.structs.asdict(snapshot),
        "gaps": msgspec.to_builtins(snapshot.gaps),
        "workflow_id": workflow_id,
    }
    with db.writing(engine) as connection:
        db.insert_new(connection, snapshots, [row])
        return _snapshot(connection.execute(_named(snapshot.family, snapshot.hash)).one())


def get(engine: sa.Engine, family: str, hash: str) -> Snapshot:
    """Return the snapshot of `family` with this hash; raises NotFound."""
    with db.reading(engine) as connection:
        row = connection.execute(_named(family, hash)).one_or_none()
    if row is None:
        raise NotFound(f"There is no snapshot {hash} of {family}.", family=family, hash=hash)
    return _snapshot(row)


def latest(engine: sa.Engine, family: str) -> Snapshot | None:
    """Return the snapshot of `family` that was taken last, or None."""
    query = sa.select(snapshots).where(snapshots.c.family == family)
    with db.reading(engine) as connection:
        row = connection.execute(
            query.order_by(snapshots.c.created_at.desc(), snapshots.c.hash)
        ).first()
    return None if row is None else _snapshot(row)


def every(engine: sa.Engine, family: str) -> list[Snapshot]:
    """Return the snapshots of `family`, newest first."""
    query = sa.select(snapshots).where(snapshots.c.family == family)
    with db.reading(engine) as connection:
        rows = connection.execute(
            query.order_by(snapshots.c.created_at.desc(), snapshots.c.hash)
        ).all()
    return [_snapshot(row) for row in rows]


def forget(engine: sa.Engine, family: str, hash: str) -> None:
    """Remove a snapshot from the register; one that is not there stays away."""
    with db.writing(engine) as connection:
        connection.execute(
            sa.delete(snapshots).where(snapshots.c.family == family, snapshots.c.hash == hash)
        )


def _named(family: str, hash: str) -> sa.Select[Any]:
    return sa.select(snapshots).where(snapshots.c.family == family, snapshots.c.hash == hash)


def _snapshot(row: Any) -> Snapshot:
    fields = {name: row._mapping[name] for name in Snapshot.__struct_fields__}
    return Snapshot(**{**fields, "gaps": msgspec.convert(fields["gaps"], list[Gap])})
