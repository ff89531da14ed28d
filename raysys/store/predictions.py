"""Predictions that were served; the truth they are compared with is in `observations`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from raysys import db
from raysys.store.tables import predictions


def append_many(engine: sa.Engine, rows: Sequence[dict[str, Any]]) -> int:
    """Append `rows` (the columns of the table); return how many of their ids were new."""
    with db.writing(engine) as connection:
        return db.insert_new(connection, predictions, rows)


def forget(engine: sa.Engine, before: datetime, most: int, dry_run: bool) -> int:
    """Remove predictions older than `before`, and of more than `most` the oldest; return how many.

    With `dry_run` they are counted only.
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
