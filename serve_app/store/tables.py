"""The tables. They stay in this package; domain values come out of it."""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import (
    JSON,
    CheckConstraint,
    Column,
    DateTime,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Text,
    UniqueConstraint,
    text,
)
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
    """One `up`, `apply` or `rollback`: what was applied, by whom, why, and how it ended."""

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


class DeploymentEventRow(Table, table=True):
    """A line that was said while a deployment was carried out."""

    __tablename__ = "deployment_event"
    __table_args__ = (Index(None, "deployment_id", "id"),)

    id: int | None = Field(default=None, primary_key=True)
    deployment_id: int = Field(
        sa_column=Column(Integer, ForeignKey("deployment.id"), nullable=False)
    )
    at: datetime = Field(sa_column=Column(DateTime(timezone=True), nullable=False))
    text: str = Field(sa_column=Column(Text, nullable=False))


STATES = "'pending', 'progressing', 'paused', 'promoted', 'rolled_back'"
UNFINISHED = text("state IN ('pending', 'progressing', 'paused')")
"""In the index and in the queries alike: a database takes an index for the very same words."""


class RevisionRow(Table, table=True):
    """One state of a model's release. Never changed or deleted: triggers see to it."""

    __tablename__ = "revision"
    __table_args__ = (
        UniqueConstraint("model", "number"),
        CheckConstraint("number > 0", name="number"),
        Index(None, "rollout_id"),
    )

    id: int | None = Field(default=None, primary_key=True)
    model: str = Field(sa_column=Column(String(255), nullable=False))
    number: int = Field(sa_column=Column(Integer, nullable=False))
    created_at: datetime = Field(sa_column=Column(DateTime(timezone=True), nullable=False))
    actor: str = Field(sa_column=Column(String(255), nullable=False))
    reason: str = Field(sa_column=Column(Text, nullable=False))
    release: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    changes: list[str] = Field(sa_column=Column(JSON, nullable=False))
    config_digest: str = Field(sa_column=Column(String(64), nullable=False))
    rollout_id: int | None = Field(
        sa_column=Column(Integer, ForeignKey("rollout.id"), nullable=True)
    )


class RolloutRow(Table, table=True):
    """One change of weights; a model has at most one that has not ended."""

    __tablename__ = "rollout"
    __table_args__ = (
        CheckConstraint(f"state IN ({STATES})", name="state"),
        Index(None, "model", "id"),
        Index(
            "uq_rollout_unfinished",
            "model",
            unique=True,
            sqlite_where=UNFINISHED,
            postgresql_where=UNFINISHED,
        ),
    )

    id: int | None = Field(default=None, primary_key=True)
    model: str = Field(sa_column=Column(String(255), nullable=False))
    state: str = Field(sa_column=Column(String(16), nullable=False))
    reason: str = Field(sa_column=Column(Text, nullable=False))
    step: int = Field(sa_column=Column(Integer, nullable=False))
    steps: list[int] = Field(sa_column=Column(JSON, nullable=False))
    origin: dict[str, int] = Field(sa_column=Column(JSON, nullable=False))
    origin_revision: int = Field(sa_column=Column(Integer, nullable=False))
    target: dict[str, int] = Field(sa_column=Column(JSON, nullable=False))
    strategy: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    created_at: datetime = Field(sa_column=Column(DateTime(timezone=True), nullable=False))
    changed_at: datetime = Field(sa_column=Column(DateTime(timezone=True), nullable=False))
    step_began_at: datetime = Field(sa_column=Column(DateTime(timezone=True), nullable=False))
    evidence: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    memory: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))


class RolloutEventRow(Table, table=True):
    """A rollout came into a state or to a step. Never changed or deleted, like a revision."""

    __tablename__ = "rollout_event"
    __table_args__ = (Index(None, "rollout_id", "id"),)

    id: int | None = Field(default=None, primary_key=True)
    rollout_id: int = Field(sa_column=Column(Integer, ForeignKey("rollout.id"), nullable=False))
    at: datetime = Field(sa_column=Column(DateTime(timezone=True), nullable=False))
    state: str = Field(sa_column=Column(String(16), nullable=False))
    step: int = Field(sa_column=Column(Integer, nullable=False))
    reason: str = Field(sa_column=Column(Text, nullable=False))
    evidence: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))


class ExposureRow(Table, table=True):
    """A request whose outcome may be reported. Thousands a second: times are plain seconds."""

    __tablename__ = "exposure"
    __table_args__ = (Index(None, "model", "at", "version"),)

    model: str = Field(sa_column=Column(String(255), primary_key=True))
    request_id: str = Field(sa_column=Column(String(128), primary_key=True))
    version: str = Field(sa_column=Column(String(255), nullable=False))
    at: float = Field(sa_column=Column(Float(53), nullable=False))
    prediction: list[int] = Field(sa_column=Column(JSON, nullable=False))


PENDING = "exposed_at IS NULL"


class OutcomeRow(Table, table=True):
    """What became of a request; without version and value as long as its exposure is unknown."""

    __tablename__ = "outcome"
    __table_args__ = (
        CheckConstraint(
            "(exposed_at IS NULL) = (version IS NULL) AND (exposed_at IS NULL) = (value IS NULL)",
            name="matched",
        ),
        Index(None, "model", "exposed_at", "version", "value"),
        Index(
            "ix_outcome_pending", "at", sqlite_where=text(PENDING), postgresql_where=text(PENDING)
        ),
    )

    model: str = Field(sa_column=Column(String(255), primary_key=True))
    request_id: str = Field(sa_column=Column(String(128), primary_key=True))
    at: float = Field(sa_column=Column(Float(53), nullable=False))
    reported: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    version: str | None = Field(sa_column=Column(String(255), nullable=True))
    exposed_at: float | None = Field(sa_column=Column(Float(53), nullable=True))
    value: float | None = Field(sa_column=Column(Float(53), nullable=True))
