"""Truth, feedback and decisions, and what a logged prediction needs to find its truth."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Add columns to `predictions`, and the tables `feedback`, `truths` and `decisions`."""
    _widen_predictions()
    _create_feedback()
    _create_truths()
    _create_decisions()


def _widen_predictions() -> None:
    for column in (
        sa.Column("row", sa.Integer, nullable=False, server_default="0"),
        sa.Column("key", sa.String(128)),
        sa.Column("anchor", TIME),
        sa.Column("truth", sa.String(16)),
    ):
        op.add_column("predictions", column)
    op.create_index("ix_predictions_key", "predictions", ["key"])
    op.create_index("predictions_family_truth", "predictions", ["family", "truth", "at"])


def _create_feedback() -> None:
    op.create_table(
        "feedback",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("family", sa.String(64), nullable=False),
        sa.Column("request_id", sa.String(128)),
        sa.Column("key", sa.String(128)),
        sa.Column("row", sa.Integer, nullable=False),
        sa.Column("values", JSON, nullable=False),
        sa.Column("source", sa.String(255), nullable=False),
        sa.Column("at", TIME, nullable=False),
        sa.Column("times", sa.Integer, nullable=False, server_default="1"),
        sa.Column("outcome", sa.String(16)),
    )
    op.create_index("feedback_family_outcome", "feedback", ["family", "outcome", "at"])


def _create_truths() -> None:
    prediction = sa.ForeignKey("predictions.id", ondelete="CASCADE")
    op.create_table(
        "truths",
        sa.Column("prediction_id", sa.String(64), prediction, primary_key=True),
        sa.Column("position", sa.Integer, primary_key=True),
        sa.Column("value", sa.Float, nullable=False),
        sa.Column("source", sa.String(255), nullable=False),
        sa.Column("at", TIME, nullable=False),
        sa.Column("revisions", sa.Integer, nullable=False, server_default="0"),
    )


def _create_decisions() -> None:
    op.create_table(
        "decisions",
        sa.Column("id", sa.String(160), primary_key=True),
        sa.Column("family", sa.String(64), nullable=False),
        sa.Column("at", TIME, nullable=False),
        sa.Column("action", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("evidence", JSON, nullable=False),
        sa.Column("dry_run", sa.Boolean, nullable=False),
        sa.Column("workflow_id", sa.String(128)),
    )
    op.create_index("decisions_family_at", "decisions", ["family", "at"])
