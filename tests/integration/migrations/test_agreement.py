"""The migrations make exactly the tables that the services' models declare, and leave everybody else's alone."""

import os
import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[3]


def alembic(database_url: str, *words: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"HEADWATER_DATABASE_URL": database_url}
    command = [sys.executable, "-m", "alembic", *words]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


async def test_models_and_migrations_agree_beside_tables_of_others(database_url: str):
    connection = await asyncpg.connect(database_url.replace("+asyncpg", ""))
    await connection.execute(
        "CREATE TABLE public.celery_taskmeta (id int); CREATE SCHEMA other; CREATE TABLE other.t ()"
    )
    await connection.close()
    result = alembic(database_url, "check")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "No new upgrade operations detected" in result.stdout


async def test_upgrading_twice_is_harmless(database_url: str):
    result = alembic(database_url, "upgrade", "head")
    assert result.returncode == 0, result.stdout + result.stderr


def test_there_is_one_line_of_migrations():
    result = alembic("", "heads")
    assert len(result.stdout.splitlines()) == 1, result.stdout + result.stderr


def test_a_missing_address_is_said():
    result = alembic("", "current")
    assert "HEADWATER_DATABASE_URL is not set" in result.stderr
    assert "Traceback" not in result.stderr


async def test_a_table_that_no_model_declares_is_noticed(database_url: str):
    connection = await asyncpg.connect(database_url.replace("+asyncpg", ""))
    await connection.execute("CREATE TABLE pool.stray (id int)")
    await connection.close()
    result = alembic(database_url, "check")
    assert result.returncode != 0
    assert "stray" in result.stdout + result.stderr
