"""Runs the migrations on the one database of all services, where each service owns the schema of its own name.

Invariant: autogenerate and `alembic check` see our schemas only, so that tables which somebody else made in the same
database are never dropped. Alembic's own version table lives in `public`. Each revision is a transaction of its own, and
waits LOCK_TIMEOUT at most for a lock (`-x lock_timeout=30s` says otherwise): the writers that queue behind it wait no longer.
"""

from __future__ import annotations

import asyncio
import importlib
import os
from pathlib import Path

from alembic import context
from sqlalchemy import Connection, MetaData, pool, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.sql.schema import SchemaItem

SCHEMAS = ("pool", "generation", "training", "cascade", "gateway")
LOCK_TIMEOUT = "5s"
_LOCK_NOT_AVAILABLE = "55P03"
_MAX_STATEMENT_CHARACTERS = 120


def service_metadata() -> list[MetaData]:
    """The `metadata` of each service that has a `models` module."""
    services = Path(__file__).parents[1] / "services"
    owners = [schema for schema in SCHEMAS if (services / schema / "models.py").exists()]
    return [importlib.import_module(f"services.{owner}.models").metadata for owner in owners]


def include_object(
    item: SchemaItem, _name: str | None, _kind: str, _reflected: bool, _other: SchemaItem | None
) -> bool:
    """Whether autogenerate may look at this table: only those in our schemas."""
    return getattr(item, "schema", None) in SCHEMAS or not hasattr(item, "schema")


def include_name(name: str | None, kind: str, _parents: object) -> bool:
    """Whether autogenerate may look at this schema or table at all: a partition is declared by the table that it is of."""
    if kind == "table" and name is not None and name.startswith("group_tokens_"):
        return False
    return name in SCHEMAS if kind == "schema" else True


def run(connection: Connection) -> None:
    """Bring the database behind an open connection to the asked revision, each revision in one transaction."""
    connection.execute(text("SELECT set_config('lock_timeout', :value, false)"), {"value": lock_timeout()})
    for schema in SCHEMAS:
        connection.execute(text(f"CREATE SCHEMA IF NOT EXISTS {schema}"))
    connection.commit()
    context.configure(
        connection=connection,
        target_metadata=service_metadata(),
        include_schemas=True,
        include_object=include_object,
        include_name=include_name,
        version_table_schema="public",
        transaction_per_migration=True,
        compare_type=True,
        compare_server_default=True,
    )
    with context.begin_transaction():
        context.run_migrations()


def lock_timeout() -> str:
    """How long a statement may wait for a lock, in Postgres' notation."""
    return str(context.get_x_argument(as_dictionary=True).get("lock_timeout", LOCK_TIMEOUT))


def locked_out(error: DBAPIError) -> str:
    """What to do about a lock that was not to be had."""
    statement = " ".join((error.statement or "").split())[:_MAX_STATEMENT_CHARACTERS]
    return (
        f"The migration gave up: another transaction held a lock for more than {lock_timeout()} that this needs: {statement}. "
        "The database keeps its revision. Find the transaction (SELECT pid, xact_start, query FROM pg_stat_activity ORDER BY "
        "xact_start), wait for its end or end it, and run the migration again."
    )


async def run_online() -> None:
    """Connect to HEADWATER_DATABASE_URL and run. Raises: SystemExit with what to do, when a lock is not to be had."""
    url = os.environ.get("HEADWATER_DATABASE_URL")
    if not url:
        raise SystemExit(
            "HEADWATER_DATABASE_URL is not set: name the database, e.g. postgresql+asyncpg://user@host/headwater"
        )
    engine = create_async_engine(url, poolclass=pool.NullPool)
    try:
        async with engine.connect() as connection:
            await connection.run_sync(run)
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) != _LOCK_NOT_AVAILABLE:
            raise
        raise SystemExit(locked_out(error)) from None
    finally:
        await engine.dispose()


if context.is_offline_mode():
    raise SystemExit("Headwater's migrations create schemas and need a connection: run alembic without --sql")
asyncio.run(run_online())
