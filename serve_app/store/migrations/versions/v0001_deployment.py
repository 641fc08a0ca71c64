"""Deployments."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Creates the table `deployment`."""
    op.create_table(
        "deployment",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("actor", sa.String(255), nullable=False),
        sa.Column("outcome", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("config", sa.JSON(), nullable=False),
        sa.Column("document", sa.JSON(), nullable=False),
        sa.CheckConstraint(
            "outcome IN ('applying', 'applied', 'failed')", name=op.f("ck_deployment_outcome")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_deployment")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_deployment_outcome_id"), "deployment", ["outcome", "id"])


def downgrade() -> None:
    """Drops it."""
    op.drop_index(op.f("ix_deployment_outcome_id"), table_name="deployment")
    op.drop_table("deployment")
