"""A database that is walked through the revisions: rows made up for any table, and everything that is stored or declared.

Nothing here knows a table by name, so that a new revision is covered by being there.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Column, Computed, Connection, MetaData, Table, inspect, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.types import Boolean, DateTime, Float, Integer, LargeBinary, Numeric, Text, Uuid

ROOT = Path(__file__).parents[3]
SCHEMAS = ("pool", "generation", "training", "cascade", "gateway")
ROWS = 3
Rows = dict[str, Counter[str]]


def configuration(versions: Path | None = None, lock_timeout: str | None = None) -> Config:
    """Alembic as `alembic.ini` has it; `versions` is a directory with more revisions."""
    options = argparse.Namespace(x=[] if lock_timeout is None else [f"lock_timeout={lock_timeout}"])
    config = Config(str(ROOT / "alembic.ini"), cmd_opts=options)
    if versions is not None:
        config.set_main_option("version_locations", f"{ROOT / 'migrations' / 'versions'}:{versions}")
    return config


def revisions(config: Config) -> list[str]:
    """Every revision, oldest first."""
    walked = list(ScriptDirectory.from_config(config).walk_revisions())
    return [script.revision for script in reversed(walked)]


def source(config: Config, revision: str) -> str:
    """The text of a revision's module."""
    script = ScriptDirectory.from_config(config).get_revision(revision)
    assert script is not None
    return Path(script.path).read_text()


async def migrate(config: Config, direction: str, revision: str) -> str | None:
    """`alembic upgrade` or `downgrade` in a thread; what it said when it gave up."""

    def run() -> str | None:
        try:
            getattr(command, direction)(config, revision)
        except SystemExit as error:
            return str(error.code)
        return None

    return await asyncio.to_thread(run)


async def reflected(engine: AsyncEngine) -> MetaData:
    """The tables that are there, partitions left out."""

    def reflect(connection: Connection) -> MetaData:
        metadata = MetaData()
        partitions = set(
            connection.execute(text("SELECT oid::regclass::text FROM pg_class WHERE relispartition")).scalars()
        )
        for schema in SCHEMAS:
            names = [
                name for name in inspect(connection).get_table_names(schema) if f"{schema}.{name}" not in partitions
            ]
            if names:
                metadata.reflect(connection, schema=schema, only=names, resolve_fks=False)
        return metadata

    async with engine.connect() as connection:
        return await connection.run_sync(reflect)


async def fill(engine: AsyncEngine) -> None:
    """ROWS more rows in every table, with a value in every column that takes one."""
    metadata = await reflected(engine)
    async with engine.begin() as connection:
        allowed = await _allowed(connection)
        made: dict[str, list[dict[str, Any]]] = {}
        for table in metadata.sorted_tables:
            parents = made.setdefault(table.fullname, [])
            for turn in range(ROWS):
                values = _row(table, turn, made, allowed)
                stored = (await connection.execute(table.insert().values(values).returning(table))).mappings().one()
                parents.append(dict(stored))


async def _allowed(connection: Any) -> dict[tuple[str, str], str]:
    """The first literal of each check on one column: `state IN ('open', …)` allows 'open'."""
    query = text("""
        SELECT c.conrelid::regclass::text AS name, a.attname, pg_get_constraintdef(c.oid) AS definition
        FROM pg_constraint c JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = c.conkey[1]
        WHERE c.contype = 'c' AND cardinality(c.conkey) = 1
    """)
    found = {}
    for name, column, definition in (await connection.execute(query)).all():
        if literal := re.search(r"'([^']+)'", definition):
            found[name, column] = literal[1]
    return found


def _row(
    table: Table, turn: int, made: dict[str, list[dict[str, Any]]], allowed: dict[tuple[str, str], str]
) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for constraint in table.foreign_key_constraints:
        parents = made[constraint.referred_table.fullname]
        parent = parents[turn % len(parents)] if parents else None  # the first row of a table that refers to itself
        for key in constraint.elements:
            row[key.parent.name] = None if parent is None else parent[key.column.name]
    for column in table.columns:
        if column.name not in row and column.identity is None and not isinstance(column.computed, Computed):
            row[column.name] = allowed.get((table.fullname, column.name)) or _value(column)
    return row


def _value(column: Column[Any]) -> Any:
    """A value of the column's type that no other row has, where the type has enough of them."""
    unique = uuid4()
    kinds: tuple[tuple[type, Any], ...] = (
        (Uuid, unique),
        (Text, f"{column.name}-{unique}"),
        (Boolean, True),
        (Float, 0.25),
        (Numeric, 0.25),
        (Integer, unique.int % 30_000),
        (DateTime, datetime.now(UTC)),
        (LargeBinary, unique.bytes),
        (JSONB, {"made": str(unique)}),
    )
    if isinstance(column.type, ARRAY):
        return [_value(Column(column.name, column.type.item_type))]
    for kind, value in kinds:
        if isinstance(column.type, kind):
            return value
    raise AssertionError(f"{column.table.fullname}.{column.name} is {column.type}: say here how to make a value of it")


async def tables(engine: AsyncEngine) -> list[str]:
    """The names of our tables, partitions left out."""
    query = text("""
        SELECT oid::regclass::text FROM pg_class
        WHERE relkind IN ('r', 'p') AND NOT relispartition AND relnamespace::regnamespace::text = ANY(:schemas) ORDER BY 1
    """)
    async with engine.connect() as connection:
        return list((await connection.execute(query, {"schemas": list(SCHEMAS)})).scalars())


async def stored(engine: AsyncEngine) -> Rows:
    """Every row of every table as JSON, counted."""
    names = await tables(engine)
    async with engine.connect() as connection:
        rows = [await connection.execute(text(f"SELECT to_jsonb(t) FROM {name} t")) for name in names]
    return {name: Counter(_canonical(row) for row in found.scalars()) for name, found in zip(names, rows, strict=True)}


def _canonical(row: Any) -> str:
    return json.dumps(json.loads(row) if isinstance(row, str) else row, sort_keys=True)


def lost(before: Rows, after: Rows) -> list[str]:
    """Rows of `before` that are not in `after`, by the columns that both have; tables that only one has are left out."""
    problems: list[str] = []
    for table in sorted(before.keys() & after.keys()):
        columns = _columns(before[table]) & _columns(after[table]) if after[table] else _columns(before[table])
        missing = _projected(before[table], columns) - _projected(after[table], columns)
        problems.extend(f"{table}: {row} (×{times})" for row, times in missing.items())
    return problems


def _columns(rows: Iterable[str]) -> set[str]:
    return set().union(*(json.loads(row).keys() for row in rows))


def _projected(rows: Counter[str], columns: set[str]) -> Counter[str]:
    projected: Counter[str] = Counter()
    for row, times in rows.items():
        kept = {name: value for name, value in json.loads(row).items() if name in columns}
        projected[json.dumps(kept, sort_keys=True)] += times
    return projected


async def declared(engine: AsyncEngine) -> set[str]:
    """Columns, valid indexes and constraints of our schemas, as sentences."""
    query = text("""
        SELECT format('%s.%s %s %s', attrelid::regclass, attname, format_type(atttypid, atttypmod), attnotnull)
        FROM pg_attribute JOIN pg_class c ON c.oid = attrelid
        WHERE attnum > 0 AND NOT attisdropped AND relkind IN ('r', 'p') AND relnamespace::regnamespace::text = ANY(:schemas)
        UNION ALL SELECT pg_get_indexdef(indexrelid) FROM pg_index JOIN pg_class c ON c.oid = indrelid
        WHERE indisvalid AND relnamespace::regnamespace::text = ANY(:schemas)
        UNION ALL SELECT format('%s %s %s', conrelid::regclass, conname, pg_get_constraintdef(oid)) FROM pg_constraint
        WHERE connamespace::regnamespace::text = ANY(:schemas)
    """)
    async with engine.connect() as connection:
        return set((await connection.execute(query, {"schemas": list(SCHEMAS)})).scalars())


async def files(engine: AsyncEngine) -> dict[int, tuple[str, int]]:
    """By oid: each table's name and the file that holds it, which a rewrite replaces."""
    query = text("""
        SELECT oid, oid::regclass::text, relfilenode FROM pg_class
        WHERE relkind = 'r' AND relnamespace::regnamespace::text = ANY(:schemas)
    """)
    async with engine.connect() as connection:
        return {oid: (name, file) for oid, name, file in await connection.execute(query, {"schemas": list(SCHEMAS)})}


async def indexes(engine: AsyncEngine) -> dict[str, tuple[int, str]]:
    """By name: the table's oid and name of each index of an ordinary table."""
    query = text("""
        SELECT indexrelid::regclass::text, indrelid, indrelid::regclass::text FROM pg_index JOIN pg_class c ON c.oid = indrelid
        WHERE relkind = 'r' AND NOT relispartition AND relnamespace::regnamespace::text = ANY(:schemas)
    """)
    async with engine.connect() as connection:
        return {name: (oid, table) for name, oid, table in await connection.execute(query, {"schemas": list(SCHEMAS)})}


async def revision_of(engine: AsyncEngine) -> str | None:
    """Where the database stands."""
    async with engine.connect() as connection:
        if (await connection.execute(text("SELECT to_regclass('public.alembic_version')"))).scalar_one() is None:
            return None
        return (await connection.execute(text("SELECT version_num FROM public.alembic_version"))).scalar_one_or_none()
