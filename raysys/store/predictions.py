"""Predictions that were served; the truth they are compared with is in `observations`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from raysys import db
from raysys.store.tables import predictions


def append_many(engine: sa.Engine, rows: Sequence[dict[str, Any]]) -> int:
    """Append `rows` (the columns of the table); return how many of their ids were new."""
    with db.writing(engine) as connection:
        return db.insert_new(connection, predictions, rows)
