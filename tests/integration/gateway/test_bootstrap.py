"""The first API key."""

import asyncio
import stat
from pathlib import Path

import pytest
from sqlalchemy import text

from services.gateway.bootstrap import bootstrap
from services.gateway.keys import KeyCheck
from shared.db import Database

pytestmark = pytest.mark.integration


async def _keys(database: Database) -> int:
    async with database.transaction() as session:
        return int((await session.execute(text("SELECT count(*) FROM gateway.api_keys"))).scalar_one())


async def test_the_first_key_is_written_for_its_owner_only_and_made_once(database: Database, tmp_path: Path):
    file = tmp_path / "keys" / "api_key"
    done = await asyncio.gather(*(bootstrap(database, file) for _ in range(3)))
    key = file.read_text().strip()
    assert sum("first API key" in sentence for sentence in done) == 1
    assert await _keys(database) == 1
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert list(file.parent.iterdir()) == [file]
    assert len(key) == len("hw_") + 43
    assert all(key not in sentence for sentence in done)
    await KeyCheck(database).holder(f"Bearer {key}")


async def test_a_lost_file_gets_another_key(database: Database, tmp_path: Path):
    file = tmp_path / "api_key"
    await bootstrap(database, file)
    first = file.read_text()
    file.unlink()
    assert "another key was made" in await bootstrap(database, file)
    assert file.read_text() != first
    assert await _keys(database) == 2


async def test_a_key_of_another_database_is_replaced(database: Database, tmp_path: Path):
    file = tmp_path / "api_key"
    file.write_text("hw_of-another-database\n")
    await bootstrap(database, file)
    await KeyCheck(database).holder(f"Bearer {file.read_text().strip()}")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


async def test_without_a_file_the_key_is_shown_once(database: Database):
    shown = await bootstrap(database, None)
    await KeyCheck(database).holder(f"Bearer {shown.rpartition(' ')[2]}")
    assert "--output" in await bootstrap(database, None)
    assert await _keys(database) == 1


async def test_a_key_that_could_not_be_written_is_not_made(database: Database, tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        await bootstrap(database, tmp_path / "file" / "api_key")
    assert await _keys(database) == 0
