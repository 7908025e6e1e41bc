"""The tables of the service's database, the same in SQLite and PostgreSQL.

Their names begin with advisor_, for in PostgreSQL Optuna's tables of studies and trials stand beside them.
Times are seconds since 1970. A document that is only ever read whole is JSON text in one column.
"""

from __future__ import annotations

from sqlalchemy import (
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.schema import SchemaItem

METADATA = MetaData()
SCHEMA = 1
"""Format of these tables; a database of a later one is refused, never guessed at."""
ID, NAME = String(40), String(200)


def _owned(name: str, *columns: SchemaItem) -> Table:
    """A table whose rows belong to a project: an id, the project and when it was made."""
    return Table(
        name,
        METADATA,
        Column("id", ID, primary_key=True),
        Column("project", ID, ForeignKey("advisor_projects.id", ondelete="CASCADE"), nullable=False),
        Column("created", Float, nullable=False),
        *columns,
        Index(f"{name}_by_time", "project", "created", "id"),
    )


formats = Table("advisor_formats", METADATA, Column("number", Integer, primary_key=True))
projects = Table(
    "advisor_projects",
    METADATA,
    Column("id", ID, primary_key=True),
    Column("name", NAME, nullable=False, unique=True),
    Column("created", Float, nullable=False),
)
tokens = _owned(
    "advisor_tokens",
    Column("name", NAME, nullable=False),
    Column("scope", String(10), nullable=False),
    Column("digest", String(64), nullable=False),
    Column("expires", Float),
    Column("revoked", Float),
)
sessions = Table(
    "advisor_sessions",
    METADATA,
    Column("digest", String(64), primary_key=True),
    Column("token", ID, ForeignKey("advisor_tokens.id", ondelete="CASCADE"), nullable=False),
    Column("expires", Float, nullable=False),
)
audit = _owned(
    "advisor_audit",
    Column("token", ID, nullable=False),
    Column("action", String(60), nullable=False),
    Column("subject", NAME, nullable=False),
    Column("request", String(64), nullable=False),
)
keys = Table(
    "advisor_idempotency_keys",
    METADATA,
    Column("project", ID, ForeignKey("advisor_projects.id", ondelete="CASCADE"), primary_key=True),
    Column("key", String(128), primary_key=True),
    Column("created", Float, nullable=False, index=True),
    Column("digest", String(64), nullable=False),
    Column("status", Integer, nullable=False),
    Column("answer", Text, nullable=False),
)
datasets = _owned(
    "advisor_datasets",
    Column("name", NAME, nullable=False),
    Column("size", Integer, nullable=False),
    Column("complete", Boolean, nullable=False),
)
recommendations = _owned(
    "advisor_recommendations",
    Column("name", NAME, nullable=False),
    Column("dataset", ID),
    Column("options", Text, nullable=False),
    Column("facts", LargeBinary, nullable=False),
    Column("document", LargeBinary, nullable=False),
)
rule_packs = _owned(
    "advisor_rule_packs",
    Column("name", NAME, nullable=False),
    Column("version", Integer, nullable=False),
    Column("files", Text, nullable=False),
    UniqueConstraint("project", "name", "version"),
)
studies = _owned(
    "advisor_studies",
    Column("name", NAME, nullable=False),
    Column("request", Text, nullable=False),
    Column("plan", LargeBinary, nullable=False),
)
leases = Table(
    "advisor_leases",
    METADATA,
    Column("study", ID, ForeignKey("advisor_studies.id", ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("attempt", Integer, nullable=False),
    Column("key", String(128)),
    Column("worker", NAME, nullable=False),
    Column("created", Float, nullable=False),
)
runs = _owned(
    "advisor_runs",
    Column("recommendation", ID, nullable=False),
    Column("request", Text, nullable=False),
    Column("state", String(10), nullable=False),
    Column("holder", String(80)),
    Column("detail", Text, nullable=False),
    Column("changed", Float, nullable=False),
)
