"""Every revision on a filled database: up, down, up again keep what is stored, and nothing waits long for a lock."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from alembic.config import Config
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.integration.migrations.database import (
    configuration,
    declared,
    files,
    fill,
    indexes,
    lost,
    migrate,
    revision_of,
    revisions,
    source,
    stored,
    tables,
)

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]
FOR_EVER_S = 60
# Tables that grow with every answer: an index on one is made while it is written to.
BIG = {"pool.questions", "pool.question_events", "pool.assignments", "pool.groups", "pool.responses", "pool.pass_rates"}


@asynccontextmanager
async def long_transaction(engine: AsyncEngine, mode: str) -> AsyncIterator[None]:
    """Somebody else's transaction that has every table of ours, and no end."""
    names = await tables(engine)
    async with engine.begin() as connection:
        if names:
            await connection.execute(text(f"LOCK TABLE {', '.join(names)} IN {mode} MODE"))
        yield


async def step(engine: AsyncEngine, config: Config, direction: str, revision: str) -> None:
    said = await migrate(config, direction, revision)
    assert said is None, said


async def test_every_revision_keeps_what_is_stored(empty: AsyncEngine):
    config = configuration()
    await step(empty, config, "upgrade", "base")
    previous = "base"
    for revision in revisions(config):
        before = await stored(empty)
        for turn in ("untouched", "written to"):
            await step(empty, config, "upgrade", revision)
            assert not lost(before, await stored(empty)), f"{revision} loses rows of a database that was {turn}"
            if turn == "written to":
                await fill(empty)
            await step(empty, config, "downgrade", previous)
            after = await stored(empty)
            assert before.keys() == after.keys(), f"going back from {revision} leaves other tables"
            assert not lost(before, after), f"going back from {revision} loses rows of a database that was {turn}"
        await step(empty, config, "upgrade", revision)
        assert not lost(before, await stored(empty)), f"{revision} loses rows when it comes again"
        await fill(empty)
        previous = revision
    assert all((await stored(empty)).values()), "a table without rows tests nothing"
    await step(empty, config, "downgrade", "base")
    assert await stored(empty) == {}


async def test_no_revision_waits_for_ever_or_stops_the_writers(empty: AsyncEngine):
    config, impatient = configuration(), configuration(lock_timeout="100ms")
    await step(empty, config, "upgrade", "base")
    for revision in revisions(config):
        standing, was, old_files, old_indexes = (
            await revision_of(empty),
            await declared(empty),
            await files(empty),
            await indexes(empty),
        )
        async with long_transaction(empty, "ROW EXCLUSIVE"), asyncio.timeout(FOR_EVER_S):
            said = await migrate(impatient, "upgrade", revision)
        if said is not None:
            assert "gave up" in said, said
            assert await revision_of(empty) == standing
            if "autocommit_block" not in source(config, revision):  # what is made concurrently is made piece by piece
                assert await declared(empty) == was, f"{revision} gave up half-way"
            await step(empty, config, "upgrade", revision)
        new_files = await files(empty)
        rewritten = [name for oid, (name, file) in old_files.items() if oid in new_files and new_files[oid][1] != file]
        assert not rewritten, f"{revision} rewrites {rewritten} while nobody can write"
        made = {name: on for name, on in (await indexes(empty)).items() if name not in old_indexes}
        locking = [name for name, (oid, table) in made.items() if oid in old_files and table in BIG]
        assert not locking or "concurrently" in source(config, revision).lower(), (
            f"{revision} makes {locking} while nobody can write"
        )
        await fill(empty)


BLOCKED = """
from alembic import op

revision = "blocked"
down_revision = {head!r}
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("CREATE TABLE pool.half_way (id int)")
    op.execute("ALTER TABLE pool.questions ADD COLUMN colour text")


def downgrade() -> None:
    op.execute("ALTER TABLE pool.questions DROP COLUMN colour")
    op.execute("DROP TABLE pool.half_way")
"""


async def test_a_revision_that_cannot_have_its_lock_changes_nothing_and_says_so(empty: AsyncEngine, tmp_path: Path):
    config = configuration()
    await step(empty, config, "upgrade", "head")
    head = revisions(config)[-1]
    (tmp_path / "blocked.py").write_text(BLOCKED.format(head=head))
    impatient = configuration(tmp_path, lock_timeout="100ms")
    was = await declared(empty)
    async with long_transaction(empty, "ACCESS SHARE"), asyncio.timeout(FOR_EVER_S):
        said = await migrate(impatient, "upgrade", "head")
    assert said is not None
    assert "ALTER TABLE pool.questions ADD COLUMN colour text" in said
    assert "100ms" in said
    assert "pg_stat_activity" in said
    assert (await revision_of(empty), await declared(empty)) == (head, was)
    await step(empty, impatient, "upgrade", "head")
    assert await revision_of(empty) == "blocked"
    assert any("colour" in sentence for sentence in await declared(empty))


async def test_earlier_revisions_stay_when_a_later_one_fails(empty: AsyncEngine, tmp_path: Path):
    head = revisions(configuration())[-1]
    (tmp_path / "blocked.py").write_text(BLOCKED.format(head=head).replace("pool.questions", "pool.nowhere"))
    with pytest.raises(ProgrammingError, match="nowhere"):
        await migrate(configuration(tmp_path), "upgrade", "head")
    assert await revision_of(empty) == head
    assert not any("half_way" in sentence for sentence in await declared(empty))


async def test_a_lost_row_is_noticed(empty: AsyncEngine):
    config = configuration()
    await step(empty, config, "upgrade", "head")
    await fill(empty)
    before = await stored(empty)
    async with empty.begin() as connection:
        await connection.execute(text("UPDATE pool.questions SET answer = 'other' WHERE position = 1"))
        await connection.execute(text("DELETE FROM pool.question_events WHERE id = 1"))
        await connection.execute(text("ALTER TABLE pool.questions DROP COLUMN source"))
    problems = lost(before, await stored(empty))
    assert len(problems) == 2
    assert {problem.partition(":")[0] for problem in problems} == {"pool.questions", "pool.question_events"}
