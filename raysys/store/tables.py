"""The tables of raysys as SQLAlchemy Core objects: columns, keys and indexes, no statements."""

from __future__ import annotations

import datetime as dt
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

metadata = sa.MetaData()
JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


class UTC(sa.TypeDecorator[dt.datetime]):
    """Aware UTC in Python, naive UTC text in SQLite, timestamptz in Postgres."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: dt.datetime | None, dialect: Any) -> dt.datetime | None:  # noqa: ARG002  SQLAlchemy gives it
        """Refuse a naive time; store the rest as UTC."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"a time without a zone was to be stored: {value}")
        return value.astimezone(dt.UTC)

    def process_result_value(self, value: dt.datetime | None, dialect: Any) -> dt.datetime | None:  # noqa: ARG002  SQLAlchemy gives it
        """Give every time as aware UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=dt.UTC) if value.tzinfo is None else value.astimezone(dt.UTC)


WEATHER_COLUMNS = (
    "temperature",
    "precipitation",
    "wind_direction",
    "wind_speed",
    "station_pressure",
    "sea_pressure",
    "humidity",
)

# One row an hour and series (a station). A value that the source lacks is NULL and stays so.
# Units: degrees C, mm, degrees, m/s, hPa, hPa, %.
observations = sa.Table(
    "observations",
    metadata,
    sa.Column("series", sa.String(64), primary_key=True),
    sa.Column("time", UTC, primary_key=True),
    *(sa.Column(name, sa.Float) for name in WEATHER_COLUMNS),
    sa.Column("source", sa.String(32), nullable=False),
    sa.Column("workflow_id", sa.String(128)),
    sa.Column("stored_at", UTC, nullable=False),
)

# Labelled rows of the tabular families. Equal rows of one file are told apart by `occurrence`, so
# that a file imported again adds nothing and an honest duplicate is kept.
examples = sa.Table(
    "examples",
    metadata,
    sa.Column("family", sa.String(64), primary_key=True),
    sa.Column("key", sa.String(64), primary_key=True),
    sa.Column("occurrence", sa.Integer, primary_key=True),
    sa.Column("position", sa.Integer, nullable=False),
    sa.Column("values", JSON, nullable=False),
    sa.Column("source", sa.String(255), nullable=False),
    sa.Column("workflow_id", sa.String(128)),
    sa.Column("stored_at", UTC, nullable=False),
)

quarantine = sa.Table(
    "quarantine",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("family", sa.String(64), nullable=False, index=True),
    sa.Column("key", sa.String(255), nullable=False),
    sa.Column("line", sa.Integer),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("raw", JSON, nullable=False),
    sa.Column("source", sa.String(255), nullable=False),
    sa.Column("workflow_id", sa.String(128)),
    sa.Column("at", UTC, nullable=False),
)

# One row a day (of the source's own calendar) that was asked for. `complete`: the source gave all
# it has; `partial`: the day was not over or not all published; `failed`: ask again.
crawl_ledger = sa.Table(
    "crawl_ledger",
    metadata,
    sa.Column("source", sa.String(32), primary_key=True),
    sa.Column("series", sa.String(64), primary_key=True),
    sa.Column("day", sa.Date, primary_key=True),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("hours", sa.Integer, nullable=False),
    sa.Column("error", sa.Text),
    sa.Column("workflow_id", sa.String(128)),
    sa.Column("at", UTC, nullable=False),
)

snapshots = sa.Table(
    "snapshots",
    metadata,
    sa.Column("hash", sa.String(64), primary_key=True),
    sa.Column("family", sa.String(64), primary_key=True),
    sa.Column("uri", sa.Text, nullable=False),
    sa.Column("rows", sa.Integer, nullable=False),
    sa.Column("time_from", UTC),
    sa.Column("time_to", UTC),
    sa.Column("gaps", JSON, nullable=False),
    sa.Column("workflow_id", sa.String(128)),
    sa.Column("created_at", UTC, nullable=False),
)

# `row` is the place within its request, `key` the caller's own name of it, and `anchor` the hour of
# the last input value where the input is a piece of a series. `truth` is how far the join came:
# NULL (not looked at), unplaced, waiting, complete, expired, or skipped (not of the sample).
predictions = sa.Table(
    "predictions",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("request_id", sa.String(128), nullable=False, index=True),
    sa.Column("family", sa.String(64), nullable=False),
    sa.Column("version", sa.String(32), nullable=False),
    sa.Column("at", UTC, nullable=False),
    sa.Column("latency_ms", sa.Float, nullable=False),
    sa.Column("inputs", JSON, nullable=False),
    sa.Column("outputs", JSON, nullable=False),
    sa.Column("row", sa.Integer, nullable=False, default=0, server_default="0"),
    sa.Column("key", sa.String(128), index=True),
    sa.Column("anchor", UTC),
    sa.Column("truth", sa.String(16)),
    sa.Index("predictions_family_at", "family", "at"),
    sa.Index("predictions_family_truth", "family", "truth", "at"),
)

# Truth as it was sent in, before any join: it may come before its prediction. The id is a hash of
# what was said; said again, `at` moves on, `times` grows and it is joined again. `outcome` is NULL
# until it is joined.
feedback = sa.Table(
    "feedback",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("family", sa.String(64), nullable=False),
    sa.Column("request_id", sa.String(128)),
    sa.Column("key", sa.String(128)),
    sa.Column("row", sa.Integer, nullable=False),
    sa.Column("values", JSON, nullable=False),
    sa.Column("source", sa.String(255), nullable=False),
    sa.Column("at", UTC, nullable=False),
    sa.Column("times", sa.Integer, nullable=False, default=1, server_default="1"),
    sa.Column("outcome", sa.String(16)),
    sa.Index("feedback_family_outcome", "family", "outcome", "at"),
)

# What the values of a prediction's output should have been; only the join writes here.
truths = sa.Table(
    "truths",
    metadata,
    sa.Column(
        "prediction_id",
        sa.String(64),
        sa.ForeignKey("predictions.id", ondelete="CASCADE"),
        primary_key=True,
    ),
    sa.Column("position", sa.Integer, primary_key=True),
    sa.Column("value", sa.Float, nullable=False),
    sa.Column("source", sa.String(255), nullable=False),
    sa.Column("at", UTC, nullable=False),
    sa.Column("revisions", sa.Integer, nullable=False, default=0, server_default="0"),
)

# What the policy of a family did, or in a dry run would have done, and why.
decisions = sa.Table(
    "decisions",
    metadata,
    sa.Column("id", sa.String(160), primary_key=True),
    sa.Column("family", sa.String(64), nullable=False),
    sa.Column("at", UTC, nullable=False),
    sa.Column("action", sa.String(16), nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("evidence", JSON, nullable=False),
    sa.Column("dry_run", sa.Boolean, nullable=False),
    sa.Column("workflow_id", sa.String(128)),
    sa.Index("decisions_family_at", "family", "at"),
)

# Append-only: triggers refuse UPDATE and DELETE. `seq` is the order of the moves.
promotions = sa.Table(
    "promotions",
    metadata,
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("id", sa.String(160), nullable=False, unique=True),
    sa.Column("family", sa.String(64), nullable=False, index=True),
    sa.Column("alias", sa.String(64), nullable=False),
    sa.Column("action", sa.String(16), nullable=False),
    sa.Column("to_version", sa.String(32), nullable=False),
    sa.Column("from_version", sa.String(32)),
    sa.Column("actor", sa.String(128), nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("report", JSON, nullable=False),
    sa.Column("at", UTC, nullable=False),
)

events = sa.Table(
    "events",
    metadata,
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("workflow_id", sa.String(128), nullable=False, index=True),
    sa.Column("at", UTC, nullable=False),
    sa.Column("step", sa.String(64), nullable=False),
    sa.Column("message", sa.Text, nullable=False),
    sa.Column("done", sa.Integer),
    sa.Column("total", sa.Integer),
    sa.Column("fields", JSON, nullable=False),
)
