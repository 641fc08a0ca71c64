"""Revisions, rollouts, exposures and outcomes."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_APPEND_ONLY = ("revision", "rollout_event")


def upgrade() -> None:
    """Creates the tables of releases."""
    _create_rollout()
    _create_revision()
    _create_rollout_event()
    _create_exposure()
    _create_outcome()
    for table in _APPEND_ONLY:
        _protect(table)


def downgrade() -> None:
    """Drops them."""
    for table in ("outcome", "exposure", "rollout_event", "revision", "rollout"):
        op.drop_table(table)
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION refuse_change()")


def _create_rollout() -> None:
    unfinished = sa.text("state IN ('pending', 'progressing', 'paused')")
    op.create_table(
        "rollout",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("model", sa.String(255), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("steps", sa.JSON(), nullable=False),
        sa.Column("origin", sa.JSON(), nullable=False),
        sa.Column("origin_revision", sa.Integer(), nullable=False),
        sa.Column("target", sa.JSON(), nullable=False),
        sa.Column("strategy", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("step_began_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("evidence", sa.JSON(), nullable=False),
        sa.CheckConstraint(
            "state IN ('pending', 'progressing', 'paused', 'promoted', 'rolled_back')",
            name=op.f("ck_rollout_state"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rollout")),
    )
    op.create_index(op.f("ix_rollout_model_id"), "rollout", ["model", "id"])
    op.create_index(
        "uq_rollout_unfinished",
        "rollout",
        ["model"],
        unique=True,
        sqlite_where=unfinished,
        postgresql_where=unfinished,
    )


def _create_revision() -> None:
    op.create_table(
        "revision",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("model", sa.String(255), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("actor", sa.String(255), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("release", sa.JSON(), nullable=False),
        sa.Column("changes", sa.JSON(), nullable=False),
        sa.Column("config_digest", sa.String(64), nullable=False),
        sa.Column("rollout_id", sa.Integer(), nullable=True),
        sa.CheckConstraint("number > 0", name=op.f("ck_revision_number")),
        sa.ForeignKeyConstraint(
            ["rollout_id"], ["rollout.id"], name=op.f("fk_revision_rollout_id_rollout")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_revision")),
        sa.UniqueConstraint("model", "number", name=op.f("uq_revision_model_number")),
    )


def _create_rollout_event() -> None:
    op.create_table(
        "rollout_event",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("rollout_id", sa.Integer(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("evidence", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(
            ["rollout_id"], ["rollout.id"], name=op.f("fk_rollout_event_rollout_id_rollout")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rollout_event")),
    )
    op.create_index(op.f("ix_rollout_event_rollout_id_id"), "rollout_event", ["rollout_id", "id"])


def _create_exposure() -> None:
    op.create_table(
        "exposure",
        sa.Column("model", sa.String(255), nullable=False),
        sa.Column("request_id", sa.String(128), nullable=False),
        sa.Column("version", sa.String(255), nullable=False),
        sa.Column("at", sa.Float(53), nullable=False),
        sa.Column("prediction", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("model", "request_id", name=op.f("pk_exposure")),
    )
    op.create_index(op.f("ix_exposure_model_at_version"), "exposure", ["model", "at", "version"])


def _create_outcome() -> None:
    pending = sa.text("exposed_at IS NULL")
    op.create_table(
        "outcome",
        sa.Column("model", sa.String(255), nullable=False),
        sa.Column("request_id", sa.String(128), nullable=False),
        sa.Column("at", sa.Float(53), nullable=False),
        sa.Column("reported", sa.JSON(), nullable=False),
        sa.Column("version", sa.String(255), nullable=True),
        sa.Column("exposed_at", sa.Float(53), nullable=True),
        sa.Column("value", sa.Float(53), nullable=True),
        sa.CheckConstraint(
            "(exposed_at IS NULL) = (version IS NULL) AND (exposed_at IS NULL) = (value IS NULL)",
            name=op.f("ck_outcome_matched"),
        ),
        sa.PrimaryKeyConstraint("model", "request_id", name=op.f("pk_outcome")),
    )
    op.create_index(
        op.f("ix_outcome_model_exposed_at_version_value"),
        "outcome",
        ["model", "exposed_at", "version", "value"],
    )
    op.create_index(
        "ix_outcome_pending", "outcome", ["at"], sqlite_where=pending, postgresql_where=pending
    )


def _protect(table: str) -> None:
    """Lets rows be added to a table, and nothing else be done to them."""
    text = f"rows of {table} are never changed"
    if op.get_bind().dialect.name == "sqlite":
        for verb in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER {table}_no_{verb.lower()} BEFORE {verb} ON {table} "
                f"BEGIN SELECT RAISE(ABORT, '{text}'); END"
            )
        return
    op.execute(
        "CREATE OR REPLACE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'rows of % are never changed', TG_TABLE_NAME; END $$"
    )
    op.execute(
        f"CREATE TRIGGER {table}_no_change BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} "
        "FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
    )
