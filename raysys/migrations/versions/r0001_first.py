"""The first schema: rows, ledger, snapshots, predictions, promotions, events."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Create every table, and the triggers that make promotions append-only."""
    _create_rows()
    _create_ledger()
    _create_models()
    if op.get_bind().dialect.name == "sqlite":
        _guard_on_sqlite()
    else:
        _guard_on_postgres()


def _create_rows() -> None:
    op.create_table(
        "observations",
        sa.Column("series", sa.String(64), primary_key=True),
        sa.Column("time", TIME, primary_key=True),
        sa.Column("temperature", sa.Float),
        sa.Column("precipitation", sa.Float),
        sa.Column("wind_direction", sa.Float),
        sa.Column("wind_speed", sa.Float),
        sa.Column("station_pressure", sa.Float),
        sa.Column("sea_pressure", sa.Float),
        sa.Column("humidity", sa.Float),
        sa.Column("source", sa.String(32), nullable=False),
        sa.Column("workflow_id", sa.String(128)),
        sa.Column("stored_at", TIME, nullable=False),
    )
    op.create_table(
        "examples",
        sa.Column("family", sa.String(64), primary_key=True),
        sa.Column("key", sa.String(64), primary_key=True),
        sa.Column("occurrence", sa.Integer, primary_key=True),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("values", JSON, nullable=False),
        sa.Column("source", sa.String(255), nullable=False),
        sa.Column("workflow_id", sa.String(128)),
        sa.Column("stored_at", TIME, nullable=False),
    )
    op.create_table(
        "quarantine",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("family", sa.String(64), nullable=False, index=True),
        sa.Column("key", sa.String(255), nullable=False),
        sa.Column("line", sa.Integer),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("raw", JSON, nullable=False),
        sa.Column("source", sa.String(255), nullable=False),
        sa.Column("workflow_id", sa.String(128)),
        sa.Column("at", TIME, nullable=False),
    )


def _create_ledger() -> None:
    op.create_table(
        "crawl_ledger",
        sa.Column("source", sa.String(32), primary_key=True),
        sa.Column("series", sa.String(64), primary_key=True),
        sa.Column("day", sa.Date, primary_key=True),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("hours", sa.Integer, nullable=False),
        sa.Column("error", sa.Text),
        sa.Column("workflow_id", sa.String(128)),
        sa.Column("at", TIME, nullable=False),
    )
    op.create_table(
        "events",
        sa.Column("seq", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("workflow_id", sa.String(128), nullable=False, index=True),
        sa.Column("at", TIME, nullable=False),
        sa.Column("step", sa.String(64), nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("done", sa.Integer),
        sa.Column("total", sa.Integer),
        sa.Column("fields", JSON, nullable=False),
    )


def _create_models() -> None:
    op.create_table(
        "snapshots",
        sa.Column("hash", sa.String(64), primary_key=True),
        sa.Column("family", sa.String(64), primary_key=True),
        sa.Column("uri", sa.Text, nullable=False),
        sa.Column("rows", sa.Integer, nullable=False),
        sa.Column("time_from", TIME),
        sa.Column("time_to", TIME),
        sa.Column("gaps", JSON, nullable=False),
        sa.Column("workflow_id", sa.String(128)),
        sa.Column("created_at", TIME, nullable=False),
    )
    op.create_table(
        "predictions",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("request_id", sa.String(128), nullable=False, index=True),
        sa.Column("family", sa.String(64), nullable=False),
        sa.Column("version", sa.String(32), nullable=False),
        sa.Column("at", TIME, nullable=False),
        sa.Column("latency_ms", sa.Float, nullable=False),
        sa.Column("inputs", JSON, nullable=False),
        sa.Column("outputs", JSON, nullable=False),
    )
    op.create_index("predictions_family_at", "predictions", ["family", "at"])
    op.create_table(
        "promotions",
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
        sa.Column("at", TIME, nullable=False),
    )


def _guard_on_sqlite() -> None:
    for change in ("UPDATE", "DELETE"):
        op.execute(
            f"CREATE TRIGGER promotions_no_{change.lower()} BEFORE {change} ON promotions "
            "BEGIN SELECT RAISE(ABORT, 'promotions are append-only'); END"
        )


def _guard_on_postgres() -> None:
    op.execute(
        "CREATE FUNCTION promotions_append_only() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'promotions are append-only'; END $$"
    )
    op.execute(
        "CREATE TRIGGER promotions_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON promotions "
        "FOR EACH STATEMENT EXECUTE FUNCTION promotions_append_only()"
    )
