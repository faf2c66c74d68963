"""Runs the migrations on the one database of all services, where each service owns the schema of its own name.

Invariant: autogenerate and `alembic check` see our schemas only, so that tables which somebody else made in the same
database are never dropped. Alembic's own version table lives in `public`.
"""

from __future__ import annotations

import asyncio
import importlib
import os
from pathlib import Path

from alembic import context
from sqlalchemy import Connection, MetaData, pool, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.sql.schema import SchemaItem

SCHEMAS = ("pool", "generation", "training", "cascade", "gateway")


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
    """Whether autogenerate may look at this schema at all."""
    return name in SCHEMAS if kind == "schema" else True


def run(connection: Connection) -> None:
    """Bring the database behind an open connection to the asked revision, in one transaction."""
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
        compare_type=True,
        compare_server_default=True,
    )
    with context.begin_transaction():
        context.run_migrations()


async def run_online() -> None:
    """Connect to HEADWATER_DATABASE_URL and run."""
    url = os.environ.get("HEADWATER_DATABASE_URL")
    if not url:
        raise SystemExit(
            "HEADWATER_DATABASE_URL is not set: name the database, e.g. postgresql+asyncpg://user@host/headwater"
        )
    engine = create_async_engine(url, poolclass=pool.NullPool)
    async with engine.connect() as connection:
        await connection.run_sync(run)
    await engine.dispose()


if context.is_offline_mode():
    raise SystemExit("Headwater's migrations create schemas and need a connection: run alembic without --sql")
asyncio.run(run_online())
