"""The tables. They stay in this package; domain values come out of it."""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import JSON, CheckConstraint, Column, DateTime, Index, MetaData, String, Text
from sqlmodel import Field, SQLModel

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}
"""Names of constraints, so that migrations can name what they change on every database."""


class Table(SQLModel):
    """Base of all tables: metadata of our own, so that other users of SQLModel stay out."""

    metadata: ClassVar[MetaData] = MetaData(naming_convention=NAMING)


class DeploymentRow(Table, table=True):
    """One `serve-app up`: what was applied, by whom, and how it ended."""

    __tablename__ = "deployment"
    __table_args__ = (
        CheckConstraint("outcome IN ('applying', 'applied', 'failed')", name="outcome"),
        Index(None, "outcome", "id"),
        # Without it SQLite gives the id of a deleted last row out again.
        {"sqlite_autoincrement": True},
    )

    id: int | None = Field(default=None, primary_key=True)
    created_at: datetime = Field(sa_column=Column(DateTime(timezone=True), nullable=False))
    actor: str = Field(sa_column=Column(String(255), nullable=False))
    outcome: str = Field(sa_column=Column(String(16), nullable=False))
    reason: str = Field(sa_column=Column(Text, nullable=False))
    sha256: str = Field(sa_column=Column(String(64), nullable=False))
    config: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    document: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
