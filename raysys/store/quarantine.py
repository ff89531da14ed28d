"""Rows that were refused, with the reason and what they held; judging rows is not done here."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec
import sqlalchemy as sa

from raysys import db
from raysys.records import Rejection
from raysys.store.tables import quarantine


def put(
    connection: sa.Connection,
    rejections: Sequence[Rejection],
    *,
    family: str,
    source: str,
    workflow_id: str | None,
    now: datetime,
) -> int:
    """Keep `rejections` inside the caller's transaction; return how many were new.

    The same row refused again for the same reason is the same entry, so that a re-run adds nothing.
    """
    rows = {}
    for rejection in rejections:
        row = {
            "family": family,
            "key": rejection.key[:255],
            "line": rejection.line,
            "reason": rejection.reason,
            "raw": msgspec.to_builtins(rejection.raw),
            "source": source[:255],
        }
        digest = hashlib.sha256(msgspec.json.encode(row, order="sorted")).hexdigest()
        rows[digest] = {"id": digest, **row, "workflow_id": workflow_id, "at": now}
    return db.insert_new(connection, quarantine, list(rows.values()))


def recent(engine: sa.Engine, family: str, limit: int = 50) -> list[Rejection]:
    """Return the rejections of `family` that were kept last, newest first."""
    query = (
        sa.select(quarantine.c.key, quarantine.c.reason, quarantine.c.line, quarantine.c.raw)
        .where(quarantine.c.family == family)
        .order_by(quarantine.c.at.desc(), quarantine.c.key.desc(), quarantine.c.id)
        .limit(limit)
    )
    with db.reading(engine) as connection:
        return [_rejection(row) for row in connection.execute(query)]


def count(engine: sa.Engine, family: str) -> int:
    """Return how many rejected rows `family` has."""
    query = sa.select(sa.func.count()).select_from(quarantine).where(quarantine.c.family == family)
    with db.reading(engine) as connection:
        return int(connection.execute(query).scalar_one())


def _rejection(row: Any) -> Rejection:
    return Rejection(key=row.key, reason=row.reason, line=row.line, raw=row.raw)
